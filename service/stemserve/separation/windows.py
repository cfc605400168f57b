"""Running a network over sound of any length, window by window, on a grid that starts at sample 0.

Windows begin every ``step`` samples; one that the sound ends in is filled up with real samples
before it and silence after it. Outputs are summed with a triangular weight and divided by the sum
of weights. All this is what ``demucs.apply.apply_model`` does with ``shifts=0``, without holding
more of the track than three windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemserve.audio import Block

Outputs = NDArray[np.float32]
"""[outputs, channels, samples]"""


@dataclass(frozen=True)
class Windows:
    """The grid, in samples."""

    length: int
    overlap: float

    @property
    def step(self) -> int:
        """From the start of one window to the next."""
        return int((1 - self.overlap) * self.length)

    @property
    def weight(self) -> NDArray[np.float32]:
        """Triangle over a window, 1 in its middle."""
        half = self.length // 2
        ramp = np.concatenate([np.arange(1, half + 1), np.arange(self.length - half, 0, -1)])
        weight: NDArray[np.float32] = (ramp / ramp.max()).astype(np.float32)
        return weight


def run_windows(
    blocks: Iterable[Block], windows: Windows, network: Callable[[Outputs], Outputs]
) -> Iterator[Outputs]:
    """Send ``blocks`` [frames, channels] through ``network``, [channels, length] → ``Outputs``.

    Yields consecutive stretches of the outputs, together exactly as long as the input.
    """
    weight = windows.weight
    pending: Outputs | None = None  # weighted sums from the present window's start on
    weights = np.zeros(windows.length, np.float32)
    for window, left, length in _cut(blocks, windows):
        out = network(window)[..., left : left + length]
        if pending is None:
            pending = np.zeros((*out.shape[:-1], windows.length), np.float32)
        pending[..., :length] += weight[:length] * out
        weights[:length] += weight[:length]
        done = min(windows.step, length)
        yield pending[..., :done] / weights[:done]
        pending = _moved(pending, done)
        weights = _moved(weights, done)


def _moved(sums: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    moved = np.zeros_like(sums)
    moved[..., : sums.shape[-1] - by] = sums[..., by:]
    return moved


def _cut(blocks: Iterable[Block], windows: Windows) -> Iterator[tuple[Outputs, int, int]]:
    """Each window [channels, length], and where in it the samples that count begin and how many."""
    source = iter(blocks)
    held: list[Block] = []
    buffer: Block | None = None
    start = 0  # of the next window, in the buffer
    ended = False
    while True:
        have = (0 if buffer is None else len(buffer)) + sum(map(len, held))
        while not ended and have < start + windows.length:
            block = next(source, None)
            if block is None:
                ended = True
            else:
                held.append(block)
                have += len(block)
        if held:
            buffer = np.concatenate(held if buffer is None else [buffer, *held])
            held = []
        if buffer is None or start >= len(buffer):
            return
        length = min(windows.length, len(buffer) - start)
        fill = windows.length - length
        first = start - fill // 2
        inside = buffer[max(first, 0) : first + windows.length]
        before = max(-first, 0)
        after = windows.length - before - len(inside)
        window = np.pad(inside, ((before, after), (0, 0))).T
        yield np.ascontiguousarray(window), fill // 2, length
        start += windows.step
        spare = max(0, start - windows.length)
        buffer, start = buffer[spare:], start - spare
