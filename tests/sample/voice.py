"""A singing voice from nothing: harmonics shaped by the formants of vowels, breath and consonants.

An additive synthesis: every harmonic of a gliding, trembling pitch gets the loudness that the
vowel's resonances give its frequency.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONTROL = 64
"""Samples from one step of the shapes to the next."""

FORMANTS = {
    "a": ((800, 90, 1.0), (1200, 110, 0.6), (2800, 160, 0.16), (3700, 200, 0.1)),
    "e": ((500, 80, 1.0), (1850, 120, 0.4), (2550, 160, 0.18), (3700, 200, 0.1)),
    "i": ((340, 70, 1.0), (2300, 130, 0.3), (3000, 170, 0.18), (3800, 200, 0.1)),
    "o": ((520, 80, 1.0), (900, 100, 0.55), (2650, 160, 0.1), (3500, 200, 0.07)),
    "u": ((380, 70, 1.0), (850, 90, 0.35), (2450, 160, 0.07), (3400, 200, 0.05)),
    "m": ((260, 70, 0.5), (1000, 200, 0.08), (2200, 250, 0.04), (3300, 300, 0.02)),
}
"""Frequency and bandwidth in hertz, and loudness, of each vowel's resonances."""

_VOICED = {"l": 0.45, "m": 0.4, "n": 0.4, "d": 0.15}
_NOISES = {
    "s": (0.11, 5200, 10500, 0.16),
    "t": (0.035, 2800, 9000, 0.2),
    "d": (0.02, 2000, 6000, 0.1),
}
"""Length in seconds, lowest and highest frequency in hertz, loudness."""


def sing(
    sung: tuple[tuple[float, float, int, str, str], ...], beat: float, frames: int, rate: int
) -> Floats:
    """The voice [frames], mono.

    ``sung``: beat, beats, MIDI note, onset and vowel of each note; ``beat`` in seconds.
    """
    random = np.random.default_rng(7)
    steps = frames // CONTROL + 2
    times = np.arange(steps) * CONTROL / rate
    pitch = np.full(steps, 69.0)
    loudness = np.zeros(steps)
    shapes = np.zeros((steps, 4, 3))
    shapes[:] = FORMANTS["a"]
    noise = np.zeros(frames)
    note = 69.0
    for start, length, midi, onset, vowel in sung:
        begin, end = start * beat, (start + length) * beat
        inside = (times >= begin - 0.09) & (times < end + 0.12)
        since = np.clip(times[inside] - begin, 0, None)
        glide = 1 / (1 + np.exp((times[inside] - begin) / 0.018))
        tremble = 0.38 * np.clip((since - 0.22) / 0.3, 0, 1) * np.sin(2 * np.pi * 5.6 * since)
        pitch[inside] = midi + (note - midi) * glide + tremble
        shapes[inside] = FORMANTS[vowel]
        swell = np.clip((times[inside] - begin + 0.03) / 0.06, 0, 1) * np.clip(
            (end + 0.1 - times[inside]) / 0.14, 0, 1
        )
        if onset in _VOICED:
            closed = np.clip((0.07 - since) / 0.05, 0, 1)[:, None, None]
            shapes[inside] += closed * (np.array(FORMANTS["m"]) - shapes[inside])
            swell *= 1 - (1 - _VOICED[onset]) * closed[:, 0, 0]
        loudness[inside] = np.maximum(loudness[inside], swell * (0.8 + 0.2 * np.exp(-since)))
        if onset in _NOISES:
            duration, low, high, loud = _NOISES[onset]
            first = int((begin - duration) * rate)
            burst = _band_noise(random, int(duration * rate), low, high, rate)
            noise[first : first + len(burst)] += loud * burst
        note = float(midi)
    drift = np.cumsum(random.standard_normal(steps))
    drift -= _smooth(drift, 400)
    pitch += 0.02 * drift / max(drift.std(), 1e-9)
    shapes = np.apply_along_axis(_smooth, 0, shapes, 24)
    voiced = _harmonics(440 * 2 ** ((_smooth(pitch, 6) - 69) / 12), loudness, shapes, frames, rate)
    breath = _band_noise(random, frames, 1500, 9000, rate) * np.interp(
        np.arange(frames), np.arange(steps) * CONTROL, loudness
    )
    return voiced + 0.012 * breath + noise


def _harmonics(
    frequency: Floats, loudness: Floats, shapes: Floats, frames: int, rate: int
) -> Floats:
    samples = np.arange(frames)
    controls = np.arange(len(frequency)) * CONTROL
    phase = 2 * np.pi * np.cumsum(np.interp(samples, controls, frequency)) / rate
    out = np.zeros(frames)
    for number in range(1, 60):
        here = frequency * number
        resonance = sum(
            shapes[:, i, 2] / np.sqrt(1 + ((here - shapes[:, i, 0]) / (shapes[:, i, 1] / 2)) ** 2)
            for i in range(4)
        )
        level = loudness * (resonance + 0.012) * number**-0.35 * (here < 11000)
        out += np.interp(samples, controls, level) * np.sin(number * phase)
    return out


def _band_noise(
    random: np.random.Generator, frames: int, low: float, high: float, rate: int
) -> Floats:
    """Noise between two frequencies, faded in and out, its loudest sample at 1."""
    spectrum = np.fft.rfft(random.standard_normal(frames))
    frequencies = np.fft.rfftfreq(frames, 1 / rate)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    shape = np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 0.5
    band: Floats = np.fft.irfft(spectrum, frames) * shape
    return band / float(np.abs(band).max())


def _smooth(values: Floats, width: int) -> Floats:
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    smooth: Floats = np.convolve(padded, np.ones(width) / width, mode="valid")
    return smooth
