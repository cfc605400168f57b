"""Running medians over spectrograms, fast enough for a preset that needs no GPU.

A sorting network over whole arrays does in a few milliseconds what sorting each neighbourhood
does in tenths of a second.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Magnitudes = NDArray[np.float32]


def running_median(padded: Magnitudes, taps: int, spacing: int, axis: int) -> Magnitudes:
    """Median of ``taps`` values ``spacing`` apart, centred, along ``axis``.

    ``padded`` is longer than the result by ``(taps - 1) * spacing``, half at each end.
    """
    length = padded.shape[axis] - (taps - 1) * spacing
    line = [
        np.take(padded, range(tap * spacing, tap * spacing + length), axis=axis)
        for tap in range(taps)
    ]
    for low, high in _median_network(taps):
        smaller = np.minimum(line[low], line[high])
        np.maximum(line[low], line[high], out=line[high])
        line[low] = smaller
    return line[taps // 2]


@cache
def _median_network(taps: int) -> tuple[tuple[int, int], ...]:
    """Comparators that bring the median of ``taps`` (odd) to the middle.

    Batcher's merge exchange (Knuth, TAOCP 3, 5.2.2, algorithm M), less what the middle does not
    depend on.
    """
    comparators: list[tuple[int, int]] = []
    top = (1 << (taps - 1).bit_length()) >> 1
    p = top
    while p:
        q, r, d = top, 0, p
        while d:
            comparators += [(i, i + d) for i in range(taps - d) if i & p == r]
            d, q, r = q - p, q >> 1, p
        p >>= 1
    needed = {taps // 2}
    kept: list[tuple[int, int]] = []
    for pair in reversed(comparators):
        if needed & set(pair):
            needed |= set(pair)
            kept.append(pair)
    return tuple(reversed(kept))
