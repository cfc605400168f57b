"""Encoding, with FFmpeg by way of PyAV: wav, flac and mp3, written as the sound comes.

Integer formats round to the nearest step without dither, so that the same input gives the same
bytes; samples beyond full scale are held at full scale and counted. wav and flac hold exactly the
samples given. mp3 does too where a player honours the LAME header (FFmpeg and its kin do, down to
about a tenth of a second); it knows rates up to 48 kHz, so anything else is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream

from stemserve.audio import Array, Block
from stemserve.audio.resample import Resampler
from stemserve.schema import BitDepth, StemFormat

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
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
    def depth(self) -> BitDepth:
        """The bit depth, with the format's default: 16 for flac, 32-bit float for wav."""
        default = BitDepth.B16 if self.format is StemFormat.FLAC else BitDepth.F32
        return self.bit_depth or default


class Encoder:
    """Writes one file; leaving the ``with`` block completes it.

    Args:
        path: where it is written; the suffix does not matter.
        encoding: format, depth, channels.
        rate: samples a second of what will be written.
        channels: of what will be written, 1 or 2; mono encodings average them.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """

    def __init__(self, path: Path, encoding: Encoding, rate: int, channels: int) -> None:
        self.clipped = 0
        self._encoding = encoding
        self._rate = rate
        self._resampler: Resampler | None = None
        width = 1 if encoding.mono else channels
        if encoding.format is StemFormat.MP3 and rate not in MP3_RATES:
            self._rate = min((r for r in MP3_RATES if r >= rate), default=MP3_RATES[-1])
            self._resampler = Resampler(rate, self._rate, width)
        codec, self._sample_format = _codec(encoding)
        self._layout = "mono" if width == 1 else "stereo"
        # rf64=auto: a WAV file beyond 4 GiB gets the 64-bit header, a smaller one the usual.
        muxer = {"rf64": "auto"} if encoding.format is StemFormat.WAV else {}
        self._container = av.open(path, "w", format=encoding.format.value, options=muxer)
        self._stream = cast(
            "AudioStream",
            self._container.add_stream(
                codec, rate=self._rate, layout=self._layout, format=self._sample_format
            ),
        )
        context = self._stream.codec_context
        if encoding.format is StemFormat.MP3:
            context.qscale = True
            context.options = {"global_quality": str(_LAMBDA_PER_QUALITY * encoding.mp3_quality)}
        elif encoding.depth is BitDepth.B24 and encoding.format is StemFormat.FLAC:
            context.options = {"bits_per_raw_sample": "24"}
        self._written = 0

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
        planar = self._sample_format.endswith("p")
        array = np.ascontiguousarray(samples.T if planar else samples.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(array, format=self._sample_format, layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._written
        self._written += len(block)
        self._container.mux(self._stream.encode(frame))

    def _quantized(self, block: Block) -> Array:
        if self._sample_format.startswith("flt"):
            if self._encoding.format is StemFormat.MP3:
                self.clipped += int(np.count_nonzero(np.abs(block) > 1))
                return np.clip(block, -1, 1)
            return block
        bits = 16 if self._sample_format == "s16" else 24
        top = 2 ** (bits - 1)
        steps: Array = np.rint(block.astype(np.float64) * top)
        self.clipped += int(np.count_nonzero((steps > top - 1) | (steps < -top)))
        steps = np.clip(steps, -top, top - 1)
        # FFmpeg holds 24 bits in the upper part of 32.
        return steps.astype(np.int16) if bits == 16 else steps.astype(np.int32) * 256


def _codec(encoding: Encoding) -> tuple[str, str]:
    """FFmpeg's names of the codec and of the sample format it takes."""
    match encoding.format, encoding.depth:
        case StemFormat.MP3, _:
            return "libmp3lame", "fltp"
        case StemFormat.FLAC, depth:
            return "flac", "s16" if depth is BitDepth.B16 else "s32"
        case _, BitDepth.B16:
            return "pcm_s16le", "s16"
        case _, BitDepth.B24:
            return "pcm_s24le", "s32"
        case _:
            return "pcm_f32le", "flt"
