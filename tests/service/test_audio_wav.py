"""WAV files that grow: the same bytes however they came about, readable at any time."""

from __future__ import annotations

import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemserve.audio.dither import quantised
from stemserve.audio.wav import WavFile
from stemserve.schema import BitDepth

from tests.service.sounds import read_audio, tones

RATE = 44_100


@pytest.mark.parametrize("depth", list(BitDepth))
@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 3000),
    channels=st.integers(1, 2),
    cuts=st.lists(st.integers(0, 3000), max_size=5),
)
def test_the_bytes_do_not_depend_on_cuts_and_crashes(
    tmp_path_factory: pytest.TempPathFactory,
    depth: BitDepth,
    frames: int,
    channels: int,
    cuts: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("wav")
    sound = tones(frames, channels)
    whole = WavFile(folder / "whole", depth, RATE, channels, voice="vocals")
    whole.append(sound)
    whole.complete()
    places = [0, *sorted(min(cut, frames) for cut in cuts), frames]
    WavFile(folder / "cut", depth, RATE, channels, voice="vocals").close()
    for begin, end in pairwise(places):
        again = WavFile(folder / "cut", depth, RATE, channels, voice="vocals", frames=begin)
        again.append(sound[begin:end])
        again.sync()
        again.append(sound[:7])  # which a crash then loses
        again.close()
    last = WavFile(folder / "cut", depth, RATE, channels, voice="vocals", frames=frames)
    read = last.read(0, frames + 99)
    last.complete()
    assert (folder / "cut").read_bytes() == (folder / "whole").read_bytes()
    np.testing.assert_array_equal(read_audio(folder / "whole")[0], read)


def test_other_programs_read_it_also_while_it_grows(tmp_path: Path) -> None:
    sound = tones(5000)
    growing = WavFile(tmp_path / "a.wav", BitDepth.B24, RATE, 2)
    growing.append(sound)
    assert read_audio(tmp_path / "a.wav")[0].shape == sound.shape
    growing.complete()
    with wave.open(str(tmp_path / "a.wav")) as other:
        assert (other.getnframes(), other.getframerate(), other.getsampwidth()) == (5000, RATE, 3)


def test_beyond_4_gib_the_header_has_64_bits(tmp_path: Path) -> None:
    frames = 2**32 // 8 + 1000
    sound = tones(1000)
    WavFile(tmp_path / "long.wav", BitDepth.F32, RATE, 2).close()
    long = WavFile(tmp_path / "long.wav", BitDepth.F32, RATE, 2, frames=frames)  # a sparse file
    long.append(sound)
    np.testing.assert_array_equal(long.read(frames, 5000), sound)
    long.complete()
    size = WavFile.size(BitDepth.F32, 2, frames + 1000)
    with (tmp_path / "long.wav").open("rb") as file:
        head = file.read(80)
    assert (tmp_path / "long.wav").stat().st_size == size
    assert head[:4] == b"RF64"
    assert head[12:16] == b"ds64"
    assert int.from_bytes(head[20:28], "little") == size - 8
    assert int.from_bytes(head[36:44], "little") == frames + 1000


def test_dither_makes_the_error_independent_of_the_sound() -> None:
    """A tone of a third of a step vanishes when it is rounded, and is there with dither."""
    step = 2.0**-15
    tone = (step / 3 * np.sin(np.arange(200_000) / 7)).astype(np.float32)[:, None]
    steps, beyond = quantised(tone, 16, 0, "vocals")
    other, _ = quantised(tone, 16, 0, "drums")
    assert beyond == 0
    error = steps - tone / step
    assert abs(np.mean(steps * tone / step) / np.mean((tone / step) ** 2) - 1) < 0.1
    assert np.mean(error**2) == pytest.approx(1 / 4, rel=0.05)  # 1/12 of rounding, 1/6 of dither
    assert abs(np.corrcoef(error[:, 0], (other - tone / step)[:, 0])[0, 1]) < 0.1


def test_what_loses_nothing_gets_no_dither() -> None:
    whole = (np.arange(-100, 100)[:, None] / 2**15).astype(np.float32)
    np.testing.assert_array_equal(quantised(whole, 16, 0, "x")[0][:, 0], np.arange(-100, 100))
    assert not quantised(np.zeros((1000, 2), np.float32), 16, 0, "x")[0].any()
