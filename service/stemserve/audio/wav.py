"""WAV files that grow in place, are read while they grow, and go on after a crash.

Until a file is complete its header says that the length is unknown, so that what is there can be
played. Beyond 4 GiB the header becomes the 64-bit one of EBU Tech 3306 (RF64), for which room is
kept from the start.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from stemserve.audio import Block
from stemserve.audio.dither import quantised
from stemserve.schema import BitDepth

_UNKNOWN = 0xFFFFFFFF
_BYTES = {BitDepth.B16: 2, BitDepth.B24: 3, BitDepth.F32: 4}
_PCM, _FLOAT = 1, 3
_HEADER = struct.Struct("<4sI4s 4sI QQQI 4sI HHIIHHH 4sII 4sI")


class WavFile:
    """One file, open for appending, and for reading what was appended from any thread.

    Args:
        path: where it is.
        depth: how samples are kept; integers get dither (`stemserve.audio.dither`).
        rate: samples a second.
        channels: 1 or 2.
        voice: whose dither it gets.
        frames: how many frames of an earlier file at that place are kept; None: it is new.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        depth: BitDepth,
        rate: int,
        channels: int,
        *,
        voice: str = "",
        frames: int | None = None,
    ) -> None:
        self.path = path
        self.channels = channels
        self.frames = frames or 0
        self._depth = depth
        self._rate = rate
        self._voice = voice
        self._width = _BYTES[depth] * channels
        fresh = os.O_TRUNC if frames is None else 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | fresh, 0o644)
        if frames is None:
            self._put(self._header(None), 0)
        else:
            os.ftruncate(self._file, self._end)

    @staticmethod
    def size(depth: BitDepth, channels: int, frames: int) -> int:
        """The bytes of a file of so many frames."""
        return _HEADER.size + _BYTES[depth] * channels * frames

    def append(self, block: Block) -> int:
        """Write float32 [frames, channels]; how many samples had to be held at full scale."""
        beyond = 0
        if self._depth is BitDepth.F32:
            data = block.astype("<f4").tobytes()
        else:
            bits = 8 * _BYTES[self._depth]
            steps, beyond = quantised(block, bits, self.frames, self._voice)
            data = _packed(steps.astype("<i4"), bits)
        self._put(data, self._end)
        self.frames += len(block)
        return beyond

    def read(self, start: int, count: int) -> Block:
        """Frames from ``start`` on, at most ``count``, as float32 [frames, channels]."""
        count = max(0, min(count, self.frames - start))
        data = os.pread(self._file, count * self._width, _HEADER.size + start * self._width)
        if self._depth is BitDepth.F32:
            samples = np.frombuffer(data, "<f4").astype(np.float32)
        elif self._depth is BitDepth.B16:
            samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(2**15)
        else:
            # In the upper three bytes of four, so that the sign is where it should be.
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            samples = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
        return samples.reshape(-1, self.channels)

    def sync(self) -> None:
        """Return once all that was appended would survive a loss of power."""
        os.fsync(self._file)

    def complete(self) -> None:
        """Say in the header how long it is, and close it."""
        if (self._end - _HEADER.size) % 2:
            self._put(b"\0", self._end)
        self._put(self._header(self.frames), 0)
        self.sync()
        self.close()

    def close(self) -> None:
        """Close it; again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def _end(self) -> int:
        return _HEADER.size + self.frames * self._width

    def _header(self, frames: int | None) -> bytes:
        size = (frames or 0) * self._width
        whole = _HEADER.size - 8 + size + size % 2
        long = whole > _UNKNOWN - 1
        unknown = long or frames is None
        is_float = self._depth is BitDepth.F32
        return _HEADER.pack(
            *(b"RF64" if long else b"RIFF", _UNKNOWN if unknown else whole, b"WAVE"),
            *(b"ds64" if long else b"JUNK", 28),
            *((whole, size, frames, 0) if long else (0, 0, 0, 0)),
            *(b"fmt ", 18, _FLOAT if is_float else _PCM, self.channels, self._rate),
            *(self._rate * self._width, self._width, 8 * _BYTES[self._depth], 0),
            *(b"fact", 4, _UNKNOWN if unknown else frames),
            *(b"data", _UNKNOWN if unknown else size),
        )

    def _put(self, data: bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, at)
            left, at = left[written:], at + written


def _packed(steps: np.ndarray[tuple[int, ...], np.dtype[np.int32]], bits: int) -> bytes:
    """Steps, little-endian, in as few bytes as they have."""
    if bits == 16:
        return steps.astype("<i2").tobytes()
    return np.ascontiguousarray(steps).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
