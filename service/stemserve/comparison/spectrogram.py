"""A sound as a picture: time to the right, pitch upwards by octaves, loudness by colour."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stemserve.audio import Block

WIDTH, HEIGHT = 640, 160
"""Pixels."""

_SIZE = 4096
_LOWEST_HZ, _HIGHEST_HZ = 40.0, 18_000.0
_RANGE_DB = 80.0
_COLOURS = (
    *((0, 0, 4), (66, 10, 104), (147, 38, 103)),
    *((221, 81, 58), (252, 165, 10), (252, 255, 164)),
)
"""From silence to loud, in even steps, between which they are blended."""


def spectrogram(sound: Block, rate: int) -> bytes:
    """A PNG of samples [frames, channels], ``WIDTH`` × ``HEIGHT``.

    A colour stands for the same loudness in every picture: dB below a full-scale sine.
    """
    mono = sound.mean(axis=1)
    return _png(_pixels(mono, rate))


def _pixels(mono: NDArray[np.float32], rate: int) -> NDArray[np.uint8]:
    """Indices of colours [HEIGHT, WIDTH], the highest pitch first."""
    window = np.hanning(_SIZE).astype(np.float32)
    padded = np.pad(mono, (_SIZE // 2, _SIZE // 2 + 1))
    starts = np.linspace(0, len(mono), WIDTH).astype(int)
    spectra = np.stack([np.abs(np.fft.rfft(padded[at : at + _SIZE] * window)) for at in starts])
    decibels = 20 * np.log10(np.maximum(spectra / (window.sum() / 2), 1e-9))
    highest = min(_HIGHEST_HZ, rate / 2)
    edges = np.geomspace(min(_LOWEST_HZ, highest / 2), highest, HEIGHT + 1) * _SIZE / rate
    rows = []
    for low, high in pairwise(edges):
        # A row holds the loudest of its bins; below, where a row is less than one, it blends two.
        first, last = int(np.ceil(low)), int(np.floor(high))
        if last > first:
            rows.append(decibels[:, first : last + 1].max(axis=1))
        else:
            at = min((low + high) / 2, decibels.shape[1] - 1.0)
            whole = min(int(at), decibels.shape[1] - 2)
            share = at - whole
            rows.append(decibels[:, whole] * (1 - share) + decibels[:, whole + 1] * share)
    shade = np.clip((np.stack(rows[::-1]) + _RANGE_DB) / _RANGE_DB, 0, 1)
    return np.rint(shade * 255).astype(np.uint8)


def _palette() -> bytes:
    stops = np.array(_COLOURS, float)
    at = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)]
    palette: NDArray[np.uint8] = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return palette.tobytes()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG with a palette of 256 colours (W3C PNG, section 11)."""
    height, width = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels], axis=1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", _palette()),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    framed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)
