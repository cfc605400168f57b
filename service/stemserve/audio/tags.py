"""Title, artist, cover and the like: read from the input, written into each result that holds them.

FFmpeg translates the names between the formats. Opus has no place for a picture but a tag of its
own making (METADATA_BLOCK_PICTURE, RFC 7845 and xiph.org's VorbisComment page).
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer, OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stemserve.audio.media import opened
from stemserve.errors import NotAudioError
from stemserve.schema import StemFormat

FIELDS = (
    *("title", "artist", "album", "album_artist", "composer", "performer"),
    *("track", "disc", "date", "genre", "comment", "copyright", "publisher"),
)
"""What is copied, in FFmpeg's names."""

LONGEST_FIELD = 4096
LARGEST_COVER = 8 * 2**20
"""Bytes; a larger picture is left out, for it would be in every stem."""

_PIXELS = {"mjpeg": "yuvj420p", "png": "rgb24"}
_MIME_TYPES = {"mjpeg": "image/jpeg", "png": "image/png"}
_FRONT_COVER = 3


@dataclass(frozen=True)
class Cover:
    """A picture as it is in the file."""

    codec: str
    width: int
    height: int
    data: bytes


@dataclass(frozen=True)
class Tags:
    """What an input says about itself."""

    fields: tuple[tuple[str, str], ...] = ()
    cover: Cover | None = None


def read_tags(path: Path) -> Tags:
    """What a file says about itself; nothing where that cannot be read."""
    try:
        with opened(path) as (container, stream):
            said = stream.metadata | container.metadata
            by_name = {name.lower(): value for name, value in said.items()}
            fields = tuple(
                (name, by_name[name][:LONGEST_FIELD]) for name in FIELDS if by_name.get(name)
            )
            return Tags(fields, _cover(container))
    except (NotAudioError, av.FFmpegError, OSError):
        return Tags()


def _cover(container: InputContainer) -> Cover | None:
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic or stream.codec_context is None:
            continue
        packet = next(iter(container.demux(stream)), None)
        codec = stream.codec_context.name
        if packet is None or codec not in _PIXELS or not 0 < packet.size <= LARGEST_COVER:
            continue
        if stream.codec_context.width and stream.codec_context.height:
            size = (stream.codec_context.width, stream.codec_context.height)
            return Cover(codec, *size, bytes(packet))
    return None


def write_tags(container: OutputContainer, tags: Tags, stem_format: StemFormat) -> None:
    """Give tags to a file that has its audio streams, and nothing written yet."""
    container.metadata.update(dict(tags.fields))
    if (cover := tags.cover) is None:
        return
    if stem_format is StemFormat.OPUS:
        container.metadata["METADATA_BLOCK_PICTURE"] = base64.b64encode(_block(cover)).decode()
        return
    stream = cast("VideoStream", container.add_stream(cover.codec, rate=1))
    stream.width, stream.height = cover.width, cover.height
    stream.pix_fmt = _PIXELS[cover.codec]
    stream.disposition = Disposition.attached_pic
    stream.metadata["comment"] = "Cover (front)"
    packet = av.Packet(cover.data)
    packet.stream, packet.pts, packet.dts = stream, 0, 0
    container.mux(packet)


def _block(cover: Cover) -> bytes:
    """The picture as a FLAC picture block; depth and palette are left to the reader."""
    mime = _MIME_TYPES[cover.codec].encode()
    return b"".join(
        (
            struct.pack(">II", _FRONT_COVER, len(mime)),
            mime,
            struct.pack(">IIIIII", 0, cover.width, cover.height, 0, 0, len(cover.data)),
            cover.data,
        )
    )
