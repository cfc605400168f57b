"""The sample's truth as arrays, and the distance of an estimate from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from stemserve.audio import Block
from stemserve.audio.decode import decode, probe
from stemserve.audio.resample import Resampler

from tests.sample import STEMS

SONG_RATE = 44100


def true_stems() -> dict[str, Block]:
    """Each stem, float32 [frames, 2], at the song's rate and of its length."""
    stems = {}
    for name, path in STEMS.items():
        facts = probe(path)
        resampler = Resampler(facts.rate, SONG_RATE, 2)
        parts = [resampler.feed(block) for block in decode(path, facts)]
        stems[name] = np.concatenate([*parts, resampler.finish()])
    return stems


def sdr(truth: NDArray[np.float32], estimate: NDArray[np.float32]) -> float:
    """Signal to distortion ratio in dB: the truth's energy over that of the difference."""
    error = (truth.astype(np.float64) - estimate) ** 2
    return float(10 * np.log10((truth.astype(np.float64) ** 2).sum() / (error.sum() + 1e-12)))
