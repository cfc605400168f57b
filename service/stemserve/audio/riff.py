"""What a WAV header promises: FFmpeg shortens the promise to what the file holds, silently."""

from __future__ import annotations

from pathlib import Path

_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""Written by recorders that stream or died: the data then goes to the end of the file."""


def missing_bytes(path: Path) -> int:
    """How many bytes of sound a RIFF file announces beyond its end; 0 for any other file."""
    end = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return 0
        data_size_64: int | None = None
        while len(header := file.read(8)) == 8:
            name, size = header[:4], int.from_bytes(header[4:], "little")
            if name == b"ds64":
                body = file.read(size + size % 2)
                if len(body) >= 16:
                    data_size_64 = int.from_bytes(body[8:16], "little")
                continue
            if name == b"data":
                if size == 0xFFFFFFFF and data_size_64 is not None:
                    size = data_size_64
                if size in _UNKNOWN_SIZES:
                    return 0
                return max(0, file.tell() + size - end)
            file.seek(size + size % 2, 1)
    return 0
