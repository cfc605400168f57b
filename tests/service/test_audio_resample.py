"""Resampling keeps time: the length is exact, a tone stays where and what it was."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from stemserve.audio import Block
from stemserve.audio.resample import Resampler, resampled_frames

RATES = st.one_of(
    st.sampled_from([8000, 11025, 22050, 32000, 44100, 48000, 88200, 96000, 192000]),
    st.integers(4000, 200_000),
)


def resampled(sound: Block, from_rate: int, to_rate: int, block: int) -> Block:
    """A sound fed in blocks."""
    resampler = Resampler(from_rate, to_rate, sound.shape[1])
    parts = [resampler.feed(sound[at : at + block]) for at in range(0, len(sound), block)]
    return np.concatenate([*parts, resampler.finish()])


@settings(max_examples=60, deadline=None)
@given(from_rate=RATES, to_rate=RATES, frames=st.integers(0, 30_000), block=st.integers(500, 9000))
def test_the_length_is_exact(from_rate: int, to_rate: int, frames: int, block: int) -> None:
    out = resampled(np.zeros((frames, 2), np.float32), from_rate, to_rate, block)
    assert out.shape == (resampled_frames(frames, Fraction(to_rate, from_rate)), 2)


@settings(max_examples=40, deadline=None)
@given(from_rate=RATES, to_rate=RATES, block=st.integers(100, 50_000), place=st.floats(0.05, 0.7))
def test_a_tone_stays_where_it_was(from_rate: int, to_rate: int, block: int, place: float) -> None:
    pitch = place * min(from_rate, to_rate) / 2
    times = np.arange(from_rate // 2) / from_rate
    sound = np.sin(2 * np.pi * pitch * times).astype(np.float32)[:, None]
    out = resampled(sound, from_rate, to_rate, block)[:, 0]
    expected = np.sin(2 * np.pi * pitch * np.arange(len(out)) / to_rate)
    edge = len(out) // 8
    assert np.abs(out - expected)[edge:-edge].max() < 2e-4


@settings(max_examples=20, deadline=None)
@given(first=RATES, second=RATES)
def test_there_and_back_is_the_same_length(first: int, second: int) -> None:
    frames = 10_007
    away = resampled(np.zeros((frames, 1), np.float32), first, second, 4000)
    back = Resampler(second, first, 1)
    parts = [back.feed(away), back.finish(frames)]
    assert sum(map(len, parts)) == frames
