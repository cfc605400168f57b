"""Mixing down to stereo: separation knows mono and stereo, files hold more.

The weights are those of ITU-R BS.775: front left and right whole, centre and surrounds at −3 dB
(a back centre at −3 dB on both sides again), low-frequency effects left out. Each side is then
divided by the sum of its weights, so that the mix cannot clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stemserve.audio import Block

_HALF_POWER = math.sqrt(0.5)
_SIDES: dict[str, tuple[float, float]] = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_HALF_POWER, _HALF_POWER),
    "LFE": (0.0, 0.0),
    "LFE2": (0.0, 0.0),
    "BL": (_HALF_POWER, 0.0),
    "BR": (0.0, _HALF_POWER),
    "SL": (_HALF_POWER, 0.0),
    "SR": (0.0, _HALF_POWER),
    "BC": (0.5, 0.5),
    "FLC": (_HALF_POWER, _HALF_POWER / 2),
    "FRC": (_HALF_POWER / 2, _HALF_POWER),
    "DL": (1.0, 0.0),
    "DR": (0.0, 1.0),
    "WL": (_HALF_POWER, 0.0),
    "WR": (0.0, _HALF_POWER),
}
_UNPLACED = (0.5, 0.5)


def mixdown(names: Sequence[str]) -> Block | None:
    """The matrix [channels, 2] that mixes the named channels to stereo.

    ``None`` for one or two channels, which stay as they are. A channel of no known place goes to
    both sides; a file whose channels are all silent by the table keeps them at equal weight.
    """
    if len(names) <= 2:
        return None
    matrix = np.array([_SIDES.get(name, _UNPLACED) for name in names], dtype=np.float32)
    if not matrix.any():
        matrix[:] = _UNPLACED
    sums = matrix.sum(axis=0)
    return (matrix / np.where(sums > 0, sums, 1)).astype(np.float32)
