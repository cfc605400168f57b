"""Running a network over sound of any length, window by window, on a grid that starts at sample 0.

Windows begin every ``step`` samples, whatever part of a track is wanted. Outputs are summed with a
weight and divided by the sum of weights. With a triangle for a weight this is what
``demucs.apply.apply_model`` does with ``shifts=0``, without holding more of the track than the
windows that the next samples depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from stemserve.separation.span import Span

Hear = Callable[[Iterable[Tensor]], Iterator[Tensor]]
"""Windows [channels, samples] in, for each in turn [outputs, channels, samples] out."""


@dataclass(frozen=True)
class Windows:
    """The grid, in samples."""

    length: int
    overlap: float
    flat: bool = False
    """All samples of a window count alike, not those in its middle the most."""
    filled: bool = True
    """A window that the sound ends in is filled up to its length: with the real samples before it
    and silence after it. Otherwise it is as short as the sound leaves it."""

    @property
    def step(self) -> int:
        """From the start of one window to the next."""
        return int((1 - self.overlap) * self.length)

    def weight(self) -> Tensor:
        """What each sample of a window counts for, at most 1."""
        if self.flat:
            return torch.ones(self.length)
        half = self.length // 2
        ramp = torch.cat([torch.arange(1, half + 1), torch.arange(self.length - half, 0, -1)])
        return ramp / ramp.max()

    def touching(self, span: Span) -> tuple[int, int | None]:
        """The first window that has a part in ``span``, and the first after the last."""
        first = max(0, (span.start - self.length) // self.step + 1)
        return first, None if span.end is None else -(-span.end // self.step)

    def needs(self, span: Span) -> Span:
        """The samples that the outputs in ``span`` depend on."""
        first, end = self.touching(span)
        before = self.length // 2 if self.filled else 0
        last = None if end is None else (end - 1) * self.step + self.length
        return Span(max(0, first * self.step - before), last)


class Pass:
    """One network on its way over a track: samples in, the outputs that they finish out."""

    def __init__(
        self,
        windows: Windows,
        hear: Hear,
        span: Span,
        begin: int,
        heard: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Begin.

        Args:
            windows: the grid.
            hear: the network.
            span: for which samples outputs are wanted.
            begin: which sample the first one fed will be: at or before ``windows.needs(span)``.
            heard: told after each window up to which sample outputs are finished.
        """
        self._windows, self._hear, self._span, self._heard = windows, hear, span, heard
        self._number, self._end = windows.touching(span)
        self._begin = begin  # of the buffer
        self._buffer = torch.zeros(0)
        self._sums: Tensor | None = None  # from the next window's start on
        self._weights = torch.zeros(windows.length)
        self._weight = windows.weight()

    def feed(self, samples: Tensor) -> Tensor | None:
        """Take samples [channels, n]; give outputs [outputs, channels, m], if any are finished."""
        self._buffer = (
            torch.cat([self._buffer, samples], dim=-1) if self._buffer.numel() else samples
        )
        have = self._begin + self._buffer.shape[-1]
        return self._run(have, (have - self._windows.length) // self._windows.step + 1)

    def finish(self) -> Tensor | None:
        """The rest, after the last samples of the track."""
        have = self._begin + self._buffer.shape[-1]
        return self._run(have, -(-have // self._windows.step))

    def _run(self, have: int, ready: int) -> Tensor | None:
        """Hear the windows before number ``ready``, of a sound that is known up to ``have``."""
        if self._end is not None:
            ready = min(ready, self._end)
        numbers = range(self._number, ready)
        finished = []
        for number, out in zip(
            numbers, self._hear(self._cut(number, have) for number in numbers), strict=True
        ):
            part = self._add(number, out, have)
            if part is not None:
                finished.append(part)
            self._heard(min((number + 1) * self._windows.step, have))
        self._number = max(self._number, ready)
        self._forget()
        return torch.cat(finished, dim=-1) if finished else None

    def _cut(self, number: int, have: int) -> Tensor:
        """A window, with what fills it."""
        windows = self._windows
        start = number * windows.step
        end = min(start + windows.length, have)
        if not windows.filled or end - start == windows.length:
            return self._buffer[:, start - self._begin : end - self._begin]
        first = start - (windows.length - (end - start)) // 2
        inside = self._buffer[:, max(first, 0) - self._begin :]
        left = max(-first, 0)
        return functional.pad(inside, (left, windows.length - left - inside.shape[-1]))

    def _add(self, number: int, out: Tensor, have: int) -> Tensor | None:
        """Add a window's output, and give what no later window has a part in."""
        windows, span = self._windows, self._span
        start = number * windows.step
        length = min(windows.length, have - start)
        if windows.filled:
            left = (windows.length - length) // 2
            out = out[..., left : left + length]
        if self._sums is None:
            self._sums = out.new_zeros((*out.shape[:-1], windows.length))
            self._weights = self._weights.to(out.device)
            self._weight = self._weight.to(out.device)
        self._sums[..., :length] += self._weight[:length] * out
        self._weights[:length] += self._weight[:length]
        done = min(windows.step, length)
        first = max(0, span.start - start)
        last = done if span.end is None else min(done, span.end - start)
        part = None
        if first < last:
            part = self._sums[..., first:last] / self._weights[first:last]
        self._sums = functional.pad(self._sums[..., done:], (0, done))
        self._weights = functional.pad(self._weights[done:], (0, done))
        return part

    def _forget(self) -> None:
        """Let go of samples that no window to come needs."""
        if self._end is not None and self._number >= self._end:
            needed = self._begin + self._buffer.shape[-1]
        else:
            needed = self._number * self._windows.step
            if self._windows.filled:
                needed -= self._windows.length // 2
        spare = min(needed - self._begin, self._buffer.shape[-1])
        if spare > 0:
            self._buffer = self._buffer[:, spare:].clone()
            self._begin += spare
