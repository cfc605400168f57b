"""Short-time spectra in a stream, on one grid that starts at sample 0.

Frame k covers the samples from ``(k - 3) · hop`` on; each sample lies in four frames, and the
square of the window, summed over them, is constant. Frames are made and turned back in slabs of
fixed size, so that neither the blocks that sound arrives in nor the length of the track changes a
bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stemserve.audio import Block

Spectra = NDArray[np.complex64]
"""[channels, frames, bins]"""

_OVERLAP = 4
_T = TypeVar("_T")


@dataclass(frozen=True)
class Grid:
    """Sizes of the transform, in samples, and of a slab, in frames."""

    size: int
    slab_frames: int = 64

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.size // _OVERLAP

    @property
    def window(self) -> NDArray[np.float32]:
        """Periodic Hann's square root, scaled so that analysis and synthesis give the input."""
        phase = 2 * np.pi * np.arange(self.size) / self.size
        return np.sqrt((0.5 - 0.5 * np.cos(phase)) * 2 / _OVERLAP).astype(np.float32)

    @property
    def slab_samples(self) -> int:
        """Samples that a slab finishes."""
        return self.slab_frames * self.hop


@dataclass(frozen=True)
class Slab:
    """``mix``: the samples that this slab finishes; ``spectra``: of the frames that it holds."""

    mix: Block
    spectra: Spectra


def analyse(blocks: Iterable[Block], grid: Grid) -> Iterator[Slab]:
    """Slabs of the sound in ``blocks``, silence before and after it.

    The first slab's ``mix`` begins ``3 · hop`` samples before the sound; the last slabs carry
    silence until every sample is finished.
    """
    lead = (_OVERLAP - 1) * grid.hop
    window = grid.window
    starts = np.arange(grid.slab_frames) * grid.hop
    buffer: Block | None = None
    fed = finished = 0

    def slab(samples: Block) -> Slab:
        frames = np.lib.stride_tricks.sliding_window_view(samples, grid.size, axis=0)[starts]
        spectra = np.fft.rfft(frames.transpose(1, 0, 2) * window, axis=-1)
        return Slab(samples[: grid.slab_samples], spectra.astype(np.complex64, copy=False))

    for block in blocks:
        fed += len(block)
        silence = np.zeros((lead, block.shape[1]), np.float32)
        buffer = np.concatenate([silence if buffer is None else buffer, block])
        while len(buffer) >= grid.slab_samples + lead:
            yield slab(buffer[: grid.slab_samples + lead])
            buffer = buffer[grid.slab_samples :]
            finished += grid.slab_samples
    while buffer is not None and finished < fed + lead:
        missing = max(0, grid.slab_samples + lead - len(buffer))
        buffer = np.pad(buffer, ((0, missing), (0, 0)))
        yield slab(buffer[: grid.slab_samples + lead])
        buffer = buffer[grid.slab_samples :]
        finished += grid.slab_samples


class Synthesis:
    """Turns the spectra of consecutive slabs back into the samples that they finish."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._window = grid.window
        self._tail: Block | None = None

    def finish(self, spectra: Spectra) -> Block:
        """Samples [slab_samples, channels] of the next slab."""
        grid = self._grid
        parts = np.fft.irfft(spectra, n=grid.size, axis=-1).astype(np.float32) * self._window
        lead = (_OVERLAP - 1) * grid.hop
        out = np.zeros((grid.slab_samples + lead, spectra.shape[0]), np.float32)
        hops = out.reshape(-1, grid.hop, spectra.shape[0])
        quarters = parts.reshape(spectra.shape[0], grid.slab_frames, _OVERLAP, grid.hop)
        for quarter in range(_OVERLAP):
            hops[quarter : quarter + grid.slab_frames] += quarters[:, :, quarter].transpose(1, 2, 0)
        if self._tail is not None:
            out[:lead] += self._tail
        self._tail = out[grid.slab_samples :].copy()
        return out[: grid.slab_samples]


def triples(items: Iterable[_T]) -> Iterator[tuple[_T | None, _T, _T | None]]:
    """Each item with its neighbours, ``None`` beyond the ends."""
    before: _T | None = None
    current: _T | None = None
    for item in items:
        if current is not None:
            yield before, current, item
            before = current
        current = item
    if current is not None:
        yield before, current, None
