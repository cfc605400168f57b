"""Resampling in a stream with exact length: soxr does the work, here its ends are made to fit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import soxr

from stemserve.audio import Block

_SLICE_FRAMES = 65536


class Resampler:
    """From one rate to another, sample 0 on sample 0, without delay or drift.

    n frames in become ``round(n · to_rate / from_rate)`` frames out, halves rounded up, whatever
    the blocks they come in.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self._ratio = Fraction(to_rate, from_rate)
        self._stream = soxr.ResampleStream(
            from_rate, to_rate, channels, dtype="float32", quality="VHQ"
        )
        self._channels = channels
        self._fed = 0
        self._given = 0

    def feed(self, block: Block) -> Block:
        """Take float32 [frames, channels]; give what is ready, possibly nothing."""
        self._fed += len(block)
        return self._counted(self._process(block, last=False))

    def finish(self, frames: int | None = None) -> Block:
        """The rest, once, after the last block; ``frames`` overrides the total length out."""
        rest = self._process(np.zeros((0, self._channels), np.float32), last=True)
        if frames is None:
            frames = resampled_frames(self._fed, self._ratio)
        wanted = max(0, frames - self._given)
        if len(rest) < wanted:
            rest = np.concatenate(
                [rest, np.zeros((wanted - len(rest), self._channels), np.float32)]
            )
        return self._counted(rest[:wanted])

    def _process(self, block: Block, *, last: bool) -> Block:
        parts = [
            self._stream.resample_chunk(np.ascontiguousarray(block[at : at + _SLICE_FRAMES]))
            for at in range(0, len(block), _SLICE_FRAMES)
        ]
        if last:
            parts.append(
                self._stream.resample_chunk(np.zeros((0, self._channels), np.float32), last=True)
            )
        if not parts:
            return np.zeros((0, self._channels), np.float32)
        return np.concatenate(parts)

    def _counted(self, block: Block) -> Block:
        self._given += len(block)
        return block


def resampled_frames(frames: int, ratio: Fraction) -> int:
    """How many frames come out of so many, halves rounded up."""
    return int(frames * ratio + Fraction(1, 2))
