"""Stem files for DJs: one MP4 with the mix and four stems, by Native Instruments' specification.

Track 0 is the mix, tracks 1 to 4 are the stems, all AAC at 44.1 or 48 kHz in stereo. Players that
know no stems play the mix. Names and colours are JSON in an atom ``moov.udta.stem``. FFmpeg puts
``moov`` at the end of the file and ``udta`` at the end of that, so that the atom can be appended
without moving anything that other atoms point to.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import av
import numpy as np

from stemserve.audio import Block
from stemserve.audio.encode import add_stream, mp4_options, nearest_rate, sound_frame
from stemserve.audio.resample import Resampler
from stemserve.audio.tags import Tags, write_tags
from stemserve.schema import StemFormat

RATES = (44100, 48000)
_BITS_A_SECOND = 256_000
_COLOURS = {"drums": "#009E73", "bass": "#D55E00", "other": "#CC79A7", "vocals": "#56B4E9"}
_OTHER_COLOUR = "#999999"
_NO_COMPRESSION = {
    "enabled": False,
    "ratio": 3,
    "output_gain": 0.5,
    "release": 0.3,
    "attack": 0.003,
    "input_gain": 0.5,
    "threshold": 0,
    "hp_cutoff": 300,
    "dry_wet": 50,
}
_NO_LIMITER = {"enabled": False, "release": 0.05, "threshold": 0, "ceiling": -0.35}


class StemFile:
    """Writes one stem file; leaving the ``with`` block completes it.

    Args:
        path: where it is written.
        rate: samples a second of what will be written.
        stems: the four stems' names, in their order.
        tags: what the file says about itself.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """

    def __init__(self, path: Path, rate: int, stems: Sequence[str], tags: Tags) -> None:
        self.clipped = 0
        self._path = path
        self._stems = stems
        self._rate = nearest_rate(rate, RATES)
        self._resamplers = [
            Resampler(rate, self._rate, 2) if rate != self._rate else None
            for _ in range(1 + len(stems))
        ]
        self._written = 0
        self._container = av.open(path, "w", format="mp4", options=mp4_options(self._rate))
        self._streams = []
        for name in ("mix", *stems):
            stream = add_stream(self._container, "aac", self._rate, 2, "fltp")
            stream.codec_context.bit_rate = _BITS_A_SECOND
            stream.metadata["handler_name"] = name
            self._streams.append(stream)
        write_tags(self._container, tags, StemFormat.STEM_MP4)

    def write(self, blocks: Sequence[Block]) -> None:
        """Append the mix and the stems, each float32 [frames, 1 or 2], all of one length."""
        self._encode(
            [
                resampler.feed(_stereo(block)) if resampler else _stereo(block)
                for block, resampler in zip(blocks, self._resamplers, strict=True)
            ]
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            try:
                self._container.close()
            except (OSError, ValueError):
                return  # the first error is the one that matters
            return
        rest = [resampler.finish() for resampler in self._resamplers if resampler]
        if rest:
            self._encode(rest)
        for stream in self._streams:
            self._container.mux(stream.encode(None))
        self._container.close()
        _append_atom(self._path, _atom(self._stems))

    def _encode(self, blocks: Sequence[Block]) -> None:
        if not len(blocks[0]):
            return
        for stream, block in zip(self._streams, blocks, strict=True):
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
            held = np.clip(block, -1, 1)
            frame = sound_frame(held, "fltp", "stereo", self._rate, self._written)
            self._container.mux(stream.encode(frame))
        self._written += len(blocks[0])


def _stereo(block: Block) -> Block:
    return block if block.shape[1] == 2 else np.repeat(block, 2, axis=1)


def _atom(stems: Sequence[str]) -> bytes:
    description = {
        "version": 1,
        "mastering_dsp": {"compressor": _NO_COMPRESSION, "limiter": _NO_LIMITER},
        "stems": [
            {"name": name.capitalize(), "color": _COLOURS.get(name, _OTHER_COLOUR)}
            for name in stems
        ],
    }
    content = json.dumps(description, separators=(",", ":")).encode()
    return struct.pack(">I4s", 8 + len(content), b"stem") + content


def _append_atom(path: Path, atom: bytes) -> None:
    """Put an atom at the end of ``moov.udta``, which is the end of the file."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        moov = _last_atom(file, 0, end, b"moov")
        grown = [moov, _last_atom(file, moov + 8, end, b"udta")]
        for place in grown:
            file.seek(place)
            size = int.from_bytes(file.read(4), "big")
            file.seek(place)
            file.write((size + len(atom)).to_bytes(4, "big"))
        file.seek(end)
        file.write(atom)


def _last_atom(file: BinaryIO, start: int, end: int, name: bytes) -> int:
    """Where the atom of that name is, the last from ``start`` to ``end``."""
    while start < end:
        file.seek(start)
        size, found = struct.unpack(">I4s", file.read(8))
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if start + size == end and found == name:
            return start
        start += max(size, 8)
    raise OSError(f"FFmpeg has written no {name.decode()} at the end of the file.")
