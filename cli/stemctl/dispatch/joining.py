"""WAV files end to end: what workers have separated in parts becomes the file of the whole track.

Samples are copied as they are. The header is the first part's with the lengths put right, so that
the whole is, byte for byte, the file that one worker would have made; beyond 4 GiB it becomes the
64-bit one of EBU Tech 3306 (RF64), for which the workers' files keep room.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PIECE = 1 << 20
_OPEN = 0xFFFFFFFF
"""A length that does not fit, or is not known."""


class NoWavError(ValueError):
    """A file is not the WAV file that it should be."""


@dataclass(frozen=True)
class Layout:
    """Where the samples of a WAV file are, and how they are kept."""

    head: bytes
    """All that stands before the samples."""
    rate: int
    width: int
    """Bytes of a frame."""
    frames: int


def layout(path: Path) -> Layout:
    """The layout of a file.

    Raises:
        NoWavError: it is no WAV file, or its samples are not all there.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        raise NoWavError("it is no WAV file")
    at, rate, width, long = 12, 0, 0, 0
    while at + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, at)
        body = at + 8
        if name == b"fmt ":
            rate, width = struct.unpack_from("<4xI4xH", head, body)
        elif name == b"ds64":
            (long,) = struct.unpack_from("<8xQ", head, body)
        elif name == b"data":
            length = long if length == _OPEN else length
            if not rate or not width or length % width or body + length > size:
                raise NoWavError("its samples are not all there")
            return Layout(head[:body], rate, width, length // width)
        at = body + length + length % 2
    raise NoWavError("it has no samples")


def join(parts: Sequence[Path], to: Path) -> tuple[int, str]:
    """Write the samples of all parts, in their order, as one file; its size and its SHA-256.

    Raises:
        NoWavError: a part is no WAV file, or not of one kind with the first.
        OSError: a part cannot be read, or the file cannot be written.
    """
    layouts = [layout(part) for part in parts]
    first = layouts[0]
    if any((one.rate, one.width) != (first.rate, first.width) for one in layouts):
        raise NoWavError("the parts are not of one kind")
    size = sum(one.frames for one in layouts) * first.width
    digest = hashlib.sha256()
    with to.open("wb") as out:

        def put(data: bytes) -> None:
            out.write(data)
            digest.update(data)

        put(_header(first, size))
        for part, one in zip(parts, layouts, strict=True):
            with part.open("rb") as file:
                file.seek(len(one.head))
                left = one.frames * one.width
                while left:
                    data = file.read(min(PIECE, left))
                    if not data:
                        raise NoWavError("its samples are not all there")
                    put(data)
                    left -= len(data)
        put(b"\0" * (size % 2))
        return out.tell(), digest.hexdigest()


def _header(first: Layout, size: int) -> bytes:
    """The head of a file of that kind with so many bytes of samples."""
    head = bytearray(first.head)
    whole = len(head) - 8 + size + size % 2
    frames = size // first.width
    long = whole >= _OPEN
    struct.pack_into("<4sI", head, 0, b"RF64" if long else b"RIFF", _OPEN if long else whole)
    at, roomy = 12, False
    while at + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, at)
        if name in (b"JUNK", b"ds64") and length >= 28:
            roomy = True
            told = (whole, size, frames) if long else (0, 0, 0)
            head[at : at + 4] = b"ds64" if long else b"JUNK"
            struct.pack_into("<QQQ", head, at + 8, *told)
        elif name == b"fact":
            struct.pack_into("<I", head, at + 8, _OPEN if long else frames)
        elif name == b"data":
            struct.pack_into("<I", head, at + 4, _OPEN if long else size)
        at += 8 + length + length % 2 if name != b"data" else 8
    if long and not roomy:
        raise NoWavError("its header has no room for more than 4 GiB")
    return bytes(head)
