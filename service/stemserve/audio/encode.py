"""Encoding, with FFmpeg by way of PyAV: flac, mp3, opus and m4a, written as the sound comes.

flac gets dither (`stemserve.audio.dither`) and holds exactly the samples given if they are whole
steps. Samples beyond full scale are held at full scale and counted. All formats have the exact
length, the lossy ones where a player honours what their headers say of the encoder's padding, as
FFmpeg and its kin do. These know certain rates only; anything else is resampled to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

from stemserve.audio import Array, Block
from stemserve.audio.dither import quantised
from stemserve.audio.resample import Resampler
from stemserve.audio.tags import Tags, write_tags
from stemserve.schema import DEFAULT_DEPTHS, BitDepth, StemFormat

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
OPUS_RATES = (48000,)
AAC_RATES = (*MP3_RATES, 64000, 88200, 96000)

_LAMBDA_PER_QUALITY = 118
"""FFmpeg counts VBR quality in steps of this (FF_QP2LAMBDA)."""


@dataclass(frozen=True)
class Encoding:
    """How a file is written. ``mp3_quality`` is LAME's VBR scale, 0 the best."""

    format: StemFormat
    bit_depth: BitDepth | None = None
    mono: bool = False
    mp3_quality: int = 0

    @property
    def depth(self) -> BitDepth | None:
        """The bit depth, with the format's default; None where there is no such thing."""
        return self.bit_depth or DEFAULT_DEPTHS.get(self.format)


@dataclass(frozen=True)
class _Codec:
    """FFmpeg's words for a format."""

    container: str
    name: str
    samples: str
    rates: tuple[int, ...] = ()
    """Those it knows, rising; none: any."""
    bits_a_second: int | None = None
    """For each channel."""


_CODECS = {
    StemFormat.MP3: _Codec("mp3", "libmp3lame", "fltp", MP3_RATES),
    StemFormat.OPUS: _Codec("opus", "libopus", "flt", OPUS_RATES, 80_000),
    StemFormat.M4A: _Codec("mp4", "aac", "fltp", AAC_RATES, 128_000),
}


class Encoder:
    """Writes one file; leaving the ``with`` block completes it.

    Args:
        path: where it is written; the suffix does not matter.
        encoding: format, depth, channels; anything but wav.
        rate: samples a second of what will be written.
        channels: of what will be written, 1 or 2; mono encodings average them.
        tags: what the file says about itself.
        voice: whose dither it gets.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        encoding: Encoding,
        rate: int,
        channels: int,
        tags: Tags | None = None,
        voice: str = "",
    ) -> None:
        self.clipped = 0
        self._encoding = encoding
        self._voice = voice
        self._written = 0
        codec = self._codec = _codec(encoding)
        width = 1 if encoding.mono else channels
        self._rate = nearest_rate(rate, codec.rates)
        self._resampler = Resampler(rate, self._rate, width) if rate != self._rate else None
        self._layout = "mono" if width == 1 else "stereo"
        self._container = av.open(path, "w", format=codec.container, options=self._muxing())
        self._stream = add_stream(self._container, codec.name, self._rate, width, codec.samples)
        context = self._stream.codec_context
        if codec.bits_a_second is not None:
            context.bit_rate = codec.bits_a_second * width
        elif encoding.format is StemFormat.MP3:
            context.qscale = True
            context.options = {"global_quality": str(_LAMBDA_PER_QUALITY * encoding.mp3_quality)}
        elif encoding.depth is BitDepth.B24:
            context.options = {"bits_per_raw_sample": "24"}
        write_tags(self._container, tags or Tags(), encoding.format)

    def write(self, block: Block) -> None:
        """Append float32 [frames, channels]."""
        if self._encoding.mono and block.shape[1] > 1:
            block = block.mean(axis=1, keepdims=True)
        self._encode(self._resampler.feed(block) if self._resampler else block)

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
        if self._resampler:
            self._encode(self._resampler.finish())
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _encode(self, block: Block) -> None:
        if not len(block):
            return
        samples = self._quantized(block)
        frame = sound_frame(samples, self._codec.samples, self._layout, self._rate, self._written)
        self._written += len(block)
        self._container.mux(self._stream.encode(frame))

    def _quantized(self, block: Block) -> Array:
        if self._codec.samples.startswith("flt"):
            self.clipped += int(np.count_nonzero(np.abs(block) > 1))
            return np.clip(block, -1, 1)
        bits = 16 if self._codec.samples == "s16" else 24
        steps, beyond = quantised(block, bits, self._written, self._voice)
        self.clipped += beyond
        # FFmpeg holds 24 bits in the upper part of 32.
        return steps.astype(np.int16) if bits == 16 else steps * 256

    def _muxing(self) -> dict[str, str]:
        match self._encoding.format:
            case StemFormat.OPUS:
                return {"fflags": "+bitexact"}  # else the stream's number is drawn by lot
            case StemFormat.M4A:
                return mp4_options(self._rate)
            case _:
                return {}


def nearest_rate(rate: int, known: tuple[int, ...]) -> int:
    """The lowest of the known rates that loses nothing, else the highest; none known: any will do.

    ``known`` rises.
    """
    return next((r for r in known if r >= rate), known[-1]) if known else rate


def mp4_options(rate: int) -> dict[str, str]:
    """What FFmpeg must be told so that the length in an MP4 file is exact, and players know it."""
    return {"brand": "M4A ", "movie_timescale": str(rate)}


def add_stream(
    container: OutputContainer, codec: str, rate: int, channels: int, samples: str
) -> AudioStream:
    """A new stream of sound; ``samples`` is FFmpeg's name of their format."""
    how: dict[str, Any] = {"layout": "mono" if channels == 1 else "stereo", "format": samples}
    if codec == "aac":
        # FFmpeg's search for what both sides share goes by memory that it has not set: the same
        # sound would get other bits each time.
        how["options"] = {"aac_ms": "0"}
    return cast("AudioStream", container.add_stream(codec, rate=rate, **how))


def sound_frame(samples: Array, form: str, layout: str, rate: int, start: int) -> av.AudioFrame:
    """Samples [frames, channels] as FFmpeg wants them; ``start``: how many went before."""
    array = np.ascontiguousarray(samples.T if form.endswith("p") else samples.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(array, format=form, layout=layout)
    frame.sample_rate, frame.pts = rate, start
    return frame


def _codec(encoding: Encoding) -> _Codec:
    if encoding.format is StemFormat.FLAC:
        return _Codec("flac", "flac", "s16" if encoding.depth is BitDepth.B16 else "s32")
    return _CODECS[encoding.format]
