"""WAV files that grow in place, are read while they grow, and go on after a crash.

Until a file is complete its header says that the length is unknown, so that what is there can be
played. Beyond 4 GiB the header becomes the 64-bit one of EBU Tech 3306 (RF64), for which room is
kept from the start.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from stemserve.audio import Block
from stemserve.audio.dither import quantised
from stemserve.schema import BitDepth

_UNKNOWN = 0xFFFFFFFF
_BYTES = {BitDepth.B16: 2, BitDepth.B24: 3, BitDepth.F32: 4}
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_CHUNK = 64
_HEADER = struct.Struct("<4sI4s 4sI QQQI 4sI HHIIHHH 4sII 4sI")
HEADER_SIZE = _HEADER.size


class WavFile:
    """One file, open for appending, and for reading what was appended from any thread.

    Args:
        path: where it is.
        depth: how samples are kept; integers get dither (`stemserve.audio.dither`).
        rate: samples a second.
        channels: 1 or 2.
        voice: whose dither it gets.
        frames: how many frames of an earlier file at that place are kept; None: it is new.
        first: which frame of the sound its first is; dither is drawn by the sound's frames.

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
        first: int = 0,
    ) -> None:
        self.path = path
        self.channels = channels
        self.frames = frames or 0
        self._first = first
        self._depth = depth
        self._rate = rate
        self._voice = voice
        self._width = _BYTES[depth] * channels
        fresh = os.O_TRUNC if frames is None else 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | fresh, 0o644)
        if frames is None:
            self._put(header(depth, rate, channels, None), 0)
        else:
            os.ftruncate(self._file, self._end)

    @staticmethod
    def size(depth: BitDepth, channels: int, frames: int) -> int:
        """The bytes of a file of so many frames."""
        return HEADER_SIZE + _BYTES[depth] * channels * frames

    def append(self, block: Block) -> int:
        """Write float32 [frames, channels]; how many samples had to be held at full scale."""
        beyond = 0
        if self._depth is BitDepth.F32:
            data = block.astype("<f4").tobytes()
        else:
            bits = 8 * _BYTES[self._depth]
            steps, beyond = quantised(block, bits, self._first + self.frames, self._voice)
            data = _packed(steps.astype("<i4"), bits)
        self._put(data, self._end)
        self.frames += len(block)
        return beyond

    def append_kept(self, data: bytes) -> None:
        """Write whole frames that are kept as here already."""
        self._put(data, self._end)
        self.frames += len(data) // self._width

    def read(self, start: int, count: int) -> Block:
        """Frames from ``start`` on, at most ``count``, as float32 [frames, channels]."""
        count = max(0, min(count, self.frames - start))
        data = os.pread(self._file, count * self._width, HEADER_SIZE + start * self._width)
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
        if (self._end - HEADER_SIZE) % 2:
            self._put(b"\0", self._end)
        self._put(header(self._depth, self._rate, self.channels, self.frames), 0)
        self.sync()
        self.close()

    def close(self) -> None:
        """Close it; again does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @property
    def _end(self) -> int:
        return HEADER_SIZE + self.frames * self._width

    def _put(self, data: bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, at)
            left, at = left[written:], at + written


def header(depth: BitDepth, rate: int, channels: int, frames: int | None) -> bytes:
    """What stands before the samples of a WAV file, `HEADER_SIZE` bytes; None: not known yet."""
    width = _BYTES[depth] * channels
    size = (frames or 0) * width
    whole = HEADER_SIZE - 8 + size + size % 2
    long = whole > _UNKNOWN - 1
    unknown = long or frames is None
    return _HEADER.pack(
        *(b"RF64" if long else b"RIFF", _UNKNOWN if unknown else whole, b"WAVE"),
        *(b"ds64" if long else b"JUNK", 28),
        *((whole, size, frames, 0) if long else (0, 0, 0, 0)),
        *(b"fmt ", 18, _FLOAT if depth is BitDepth.F32 else _PCM, channels, rate),
        *(rate * width, width, 8 * _BYTES[depth], 0),
        *(b"fact", 4, _UNKNOWN if unknown else frames),
        *(b"data", _UNKNOWN if unknown else size),
    )


@dataclass(frozen=True)
class WavSamples:
    """The samples in a WAV file of this or another program, as they are kept there."""

    path: Path
    depth: BitDepth
    rate: int
    channels: int
    frames: int
    offset: int
    """Bytes before the first."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Find them.

        Raises:
            ValueError: it is no WAV file of one of the depths.
            OSError: it cannot be read.
        """
        form = long_size = None
        with path.open("rb") as file:
            head = file.read(12)
            if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
                raise ValueError("it is no WAV file")
            while len(begin := file.read(8)) == 8:
                name, size = begin[:4], int.from_bytes(begin[4:], "little")
                if name == b"data" and form is not None:
                    depth, rate, channels = form
                    there = path.stat().st_size - file.tell()
                    size = min(long_size or there, there) if size == _UNKNOWN else min(size, there)
                    frames = size // (_BYTES[depth] * channels)
                    return cls(path, depth, rate, channels, frames, file.tell())
                body = file.read(min(size, _CHUNK)) if name in (b"fmt ", b"ds64") else b""
                if name == b"fmt ":
                    form = _form(body)
                elif name == b"ds64":
                    long_size = int.from_bytes(body[8:16], "little")
                file.seek(size + size % 2 - len(body), os.SEEK_CUR)
        raise ValueError("it holds no samples")

    @property
    def width(self) -> int:
        """Bytes of a frame."""
        return _BYTES[self.depth] * self.channels

    def read(self, start: int, count: int) -> bytes:
        """Frames from ``start`` on, at most ``count``, as they are kept."""
        count = max(0, min(count, self.frames - start))
        with self.path.open("rb") as file:
            file.seek(self.offset + start * self.width)
            return file.read(count * self.width)


def _form(body: bytes) -> tuple[BitDepth, int, int]:
    """Depth, rate and channels of a ``fmt`` chunk; raises `ValueError`."""
    if len(body) < 16:
        raise ValueError("its header is cut short")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = int.from_bytes(body[24:26], "little")
    depth = {(_PCM, 16): BitDepth.B16, (_PCM, 24): BitDepth.B24, (_FLOAT, 32): BitDepth.F32}
    if (tag, bits) not in depth or not channels or not rate:
        raise ValueError(f"it holds samples of {bits} bits in a form that is not used here")
    return depth[tag, bits], rate, channels


def _packed(steps: np.ndarray[tuple[int, ...], np.dtype[np.int32]], bits: int) -> bytes:
    """Steps, little-endian, in as few bytes as they have."""
    if bits == 16:
        return steps.astype("<i2").tobytes()
    return np.ascontiguousarray(steps).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
