"""What can be said of a stem in numbers, without knowing the true one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stemserve.audio import Block

SILENCE_DB = -120.0
"""Nothing quieter is told apart."""


@dataclass(frozen=True)
class Level:
    """How loud a sound is, in dB of full scale."""

    rms_db: float
    """Root of the mean square, over all channels."""
    peak_db: float


def level(sound: Block) -> Level:
    """The level of samples [frames, channels]."""
    wide = sound.astype(np.float64)
    return Level(_db(float(np.sqrt(np.mean(wide**2)))), _db(float(np.max(np.abs(wide)))))


def residual(mix: Block, stems: Mapping[str, Block]) -> Block:
    """What the stems leave of the mix: the mix less their sum.

    ``instrumental`` and ``no_…`` hold what other stems hold too: they count only where nothing else
    stands beside the vocals.
    """
    own = [name for name in stems if name != "instrumental" and not name.startswith("no_")]
    counted = own if len(own) > 1 else list(stems)
    left: Block = mix - sum((stems[name] for name in counted), np.zeros_like(mix))
    return left


def _db(value: float) -> float:
    return max(SILENCE_DB, 20 * float(np.log10(max(value, 1e-12))))
