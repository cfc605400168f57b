"""From float to integer samples: rounding, with dither where bits are lost.

The dither is TPDF noise of ±1 step (Lipshitz, Wannamaker, Vanderkooy: Quantization and Dither,
JAES 1992), which makes the error independent of the sound. It is drawn by position from a counter
based generator, so a sound gets the same noise however it is cut, and the same bytes each time. A
sample that is a whole number of steps loses nothing and gets none: silence stays silence.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from stemserve.audio import Block

_DRAWS_PER_COUNT = 4
"""Philox gives so many 64-bit words for one value of its counter."""


def quantised(block: Block, bits: int, start: int, voice: str) -> tuple[NDArray[np.int32], int]:
    """A block in steps of 2^(1 − bits).

    Args:
        block: float32 [frames, channels].
        bits: of a sample.
        start: frames of the same sound that went before.
        voice: whose noise it is; two sounds that are heard together want two.

    Returns:
        int32 [frames, channels], and how many samples were beyond full scale and are held there.
    """
    top = 2 ** (bits - 1)
    steps: NDArray[np.float64] = block.astype(np.float64) * top
    rounded = np.rint(steps)
    beyond = int(np.count_nonzero((rounded > top - 1) | (rounded < -top)))
    loses = steps != rounded
    if loses.any():
        noise = _triangular(steps.size, start * block.shape[1], voice).reshape(steps.shape)
        rounded = np.where(loses, np.rint(steps + noise), rounded)
    return np.clip(rounded, -top, top - 1).astype(np.int32), beyond


def _triangular(count: int, start: int, voice: str) -> NDArray[np.float64]:
    """Numbers ``start`` to ``start + count`` of a voice's noise, between −1 and 1."""
    source = np.random.Philox(key=zlib.crc32(voice.encode()))
    source.advance(start // _DRAWS_PER_COUNT)
    skipped = start % _DRAWS_PER_COUNT
    halves = source.random_raw(count + skipped)[skipped:].view(np.uint32).reshape(-1, 2)
    noise: NDArray[np.float64] = (halves[:, 0].astype(np.float64) - halves[:, 1]) / 2**32
    return noise
