"""The preset without weights: sums, grid, lengths, and that it does hear what it says it hears."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemserve.audio import Block
from stemserve.separation.center import STEMS, separate
from stemserve.separation.medians import running_median
from stemserve.separation.span import Span

from tests.bench import center as bench
from tests.sample import SONG
from tests.sample import STEMS as TRUE_STEMS
from tests.sample.measure import sdr, true_stems
from tests.service.sounds import read_audio

RATE = 44100


def in_blocks(sound: Block, sizes: Sequence[int]) -> Iterator[Block]:
    """A sound in blocks of the given sizes, over and over."""
    at = number = 0
    while at < len(sound):
        size = sizes[number % len(sizes)]
        yield sound[at : at + size]
        at, number = at + size, number + 1


def separated(
    sound: Block, sizes: Sequence[int] = (65536,), rate: int = RATE, stems: Sequence[str] = STEMS
) -> dict[str, Block]:
    """Whole stems of a sound."""
    parts = list(separate(in_blocks(sound, sizes), rate, stems))
    return {stem: np.concatenate([part[stem] for part in parts]) for stem in stems}


def noise(frames: int, channels: int, seed: int = 0) -> Block:
    """Noise, part of it the same on all channels."""
    random = np.random.default_rng(seed)
    own = random.standard_normal((frames, channels))
    shared = random.standard_normal((frames, 1))
    return (0.1 * (own + shared)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    frames=st.one_of(st.integers(1, 5000), st.integers(60_000, 140_000)),
    channels=st.integers(1, 2),
    rate=st.sampled_from([8000, 37123, 44100, 96000]),
    sizes=st.lists(st.integers(500, 90_000), min_size=1, max_size=4),
)
def test_stems_add_up_and_blocks_do_not_matter(
    frames: int, channels: int, rate: int, sizes: list[int]
) -> None:
    sound = noise(frames, channels)
    stems = separated(sound, sizes, rate)
    assert {stem.shape for stem in stems.values()} == {sound.shape}
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], sound, atol=1e-6)
    four = stems["vocals"] + stems["drums"] + stems["bass"] + stems["other"]
    np.testing.assert_allclose(four, sound, atol=1e-6)
    at_once = separated(sound, [frames], rate)
    for stem in STEMS:
        np.testing.assert_array_equal(stems[stem], at_once[stem])


def test_a_stem_does_not_depend_on_which_others_are_wanted() -> None:
    sound = noise(80_000, 2)
    every = separated(sound)
    for wanted in (["vocals"], ["instrumental"], ["bass", "drums"]):
        some = separated(sound, stems=wanted)
        assert list(some) == wanted
        for stem in wanted:
            np.testing.assert_array_equal(some[stem], every[stem])


def test_a_longer_track_begins_the_same() -> None:
    sound = noise(500_000, 2)
    short, long = separated(sound[:300_000]), separated(sound)
    for stem in STEMS:
        np.testing.assert_array_equal(long[stem][:150_000], short[stem][:150_000])


def test_nothing_in_gives_nothing_out() -> None:
    assert list(separate(iter(()), RATE, STEMS)) == []


def test_silence_gives_silence() -> None:
    for part in separate([np.zeros((100_000, 2), np.float32)], RATE, STEMS):
        for stem in part.values():
            np.testing.assert_array_equal(stem, 0)


def test_memory_does_not_grow_with_the_track() -> None:
    def peak(seconds: int) -> int:
        block = noise(RATE, 2)
        tracemalloc.start()
        for _ in separate((block for _ in range(seconds)), RATE, STEMS):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(60) < 1.2 * peak(15)


def test_a_panned_tone_stays_with_the_band_and_a_central_one_is_the_voice() -> None:
    times = np.arange(4 * RATE) / RATE
    sway = 30 * np.sin(2 * np.pi * 5 * times) / 5
    sung = 0.3 * np.sin(2 * np.pi * 660 * times + sway)
    played = 0.3 * np.sin(2 * np.pi * 1500 * times)
    low = 0.3 * np.sin(2 * np.pi * 55 * times)
    sound = np.stack([sung + low + played, sung + low], axis=1).astype(np.float32)
    stems = separated(sound)
    for name, truth, pan in (("vocals", sung, 1), ("bass", low, 1), ("other", played, 0)):
        expected = np.stack([truth, truth * pan], axis=1).astype(np.float32)
        assert sdr(expected, stems[name]) > 10, name


def test_clicks_are_drums() -> None:
    sound = np.zeros((3 * RATE, 2), np.float32)
    sound[::11025] = 0.9
    stems = separated(sound)
    energy = {stem: float((stems[stem] ** 2).sum()) for stem in STEMS}
    assert energy["drums"] > 10 * max(energy["vocals"], energy["bass"])


@settings(max_examples=30, deadline=None)
@given(
    taps=st.integers(0, 12).map(lambda half: 2 * half + 1),
    spacing=st.integers(1, 3),
    axis=st.integers(0, 1),
)
def test_the_fast_median_is_the_median(taps: int, spacing: int, axis: int) -> None:
    values = np.random.default_rng(taps).random((90, 80)).astype(np.float32)
    fast = running_median(values, taps, spacing, axis)
    window = np.lib.stride_tricks.sliding_window_view(values, (taps - 1) * spacing + 1, axis)
    np.testing.assert_array_equal(fast, np.median(window[..., ::spacing], axis=-1))


def test_the_song_is_the_sum_of_its_stems() -> None:
    song, rate = read_audio(SONG)
    truth = true_stems()
    assert set(truth) == set(TRUE_STEMS)
    assert rate == RATE
    assert 20 * RATE < len(song) < 30 * RATE
    total = np.sum(list(truth.values()), axis=0)
    np.testing.assert_allclose(total, song, atol=2 / 32768)
    assert 0.3 < np.abs(song).max() < 0.9


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    """What the bench measures."""
    return bench.measure()


@pytest.mark.parametrize("stem", STEMS)
def test_every_stem_is_nearer_to_its_truth_than_the_mix(
    figures: dict[str, float], stem: str
) -> None:
    assert figures[f"{stem}_sdr_gain_db"] > 3
    assert figures["realtime"] > 1


@settings(max_examples=6, deadline=None)
@given(
    start=st.integers(0, 390_000),
    frames=st.integers(1, 200_000),
    rate=st.sampled_from([8000, 44100]),
)
def test_a_span_is_what_the_whole_has_there(start: int, frames: int, rate: int) -> None:
    sound = noise(400_000, 2)
    blocks = in_blocks(sound, (65_536,))
    parts = list(separate(blocks, rate, ["vocals", "drums"], Span(start, start + frames)))
    whole = separated(sound, rate=rate, stems=["vocals", "drums"])
    for stem, expected in whole.items():
        part = np.concatenate([part[stem] for part in parts])
        np.testing.assert_array_equal(part, expected[start : start + frames])
