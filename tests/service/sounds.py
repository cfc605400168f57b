"""Sounds for tests, and files of them in every shape that FFmpeg can write."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from stemserve.audio import Block
from stemserve.audio.decode import decode, probe

DTYPES: dict[str, type[np.generic]] = {"u8": np.uint8, "s16": np.int16, "s32": np.int32}


def tones(frames: int, channels: int = 2, rate: int = 44100) -> Block:
    """A tone of its own on every channel, [frames, channels]."""
    times = np.arange(frames) / rate
    pitches = rate / 40 / (1 + np.arange(channels))
    return (0.3 * np.sin(2 * np.pi * pitches * times[:, None] + 0.5)).astype(np.float32)


def write_audio(
    path: Path,
    sound: Block,
    rate: int,
    codec: str,
    *,
    container: str | None = None,
    sample_format: str = "s16",
    layout: str | None = None,
) -> Path:
    """Write a sound [frames, channels] with FFmpeg, and give the path back."""
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[sound.shape[1]]
    with av.open(path, "w", format=container) as out:
        stream = cast(
            "AudioStream",
            out.add_stream(codec, rate=rate, layout=layout, format=sample_format),
        )
        out.mux(stream.encode(_frame(sound, rate, sample_format, layout)))
        out.mux(stream.encode(None))
    return path


def write_video(path: Path, sound: Block | None, rate: int = 48000) -> Path:
    """A video of a few grey frames, with a sound track or without."""
    with av.open(path, "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        if sound is not None:
            audio = out.add_stream("aac", rate=rate, layout="stereo", format="fltp")
        for number in range(5):
            picture = av.VideoFrame.from_ndarray(
                np.full((64, 64, 3), 40 * number, np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = number, Fraction(1, 10)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        if sound is not None:
            out.mux(audio.encode(_frame(sound, rate, "fltp", "stereo")))
            out.mux(audio.encode(None))
    return path


def cover_picture(codec: str, width: int, height: int) -> bytes:
    """A grey picture, as mjpeg or png."""
    context = cast("VideoCodecContext", av.CodecContext.create(codec, "w"))
    context.width, context.height, context.time_base = width, height, Fraction(1)
    context.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}[codec]
    grey = av.VideoFrame.from_ndarray(np.full((height, width, 3), 99, np.uint8), format="rgb24")
    grey = grey.reformat(format=context.pix_fmt)
    grey.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(grey), *context.encode(None)])


def read_audio(path: Path) -> tuple[Block, int]:
    """All of a file [frames, channels], and its rate."""
    facts = probe(path)
    return np.concatenate(list(decode(path, facts))), facts.rate


def _frame(sound: Block, rate: int, sample_format: str, layout: str) -> av.AudioFrame:
    array: NDArray[Any] = sound
    base = sample_format.removesuffix("p")
    if base in DTYPES:
        dtype = DTYPES[base]
        full = 2 ** (8 * np.dtype(dtype).itemsize - 1)
        shifted = np.rint(sound.astype(np.float64) * (full - 1)) + (full if base == "u8" else 0)
        array = shifted.astype(dtype)
    array = array.T if sample_format.endswith("p") else array.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(array), format=sample_format, layout=layout
    )
    frame.sample_rate, frame.pts = rate, 0
    return frame
