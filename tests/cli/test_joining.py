"""Parts of WAV files end to end are, byte for byte, the file that one worker would have made."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemctl.dispatch.joining import Layout, NoWavError, _header, join, layout
from stemserve.audio.wav import WavFile, header
from stemserve.schema import BitDepth

RATE = 8000


def write(path: Path, samples: np.ndarray, depth: BitDepth) -> Path:
    """A file as a worker writes it; ``samples`` are whole steps, so that dither alters none."""
    file = WavFile(path, depth, RATE, samples.shape[1])
    file.append(samples.astype(np.float32))
    file.complete()
    return path


@given(
    cuts=st.lists(st.integers(1, 199), max_size=5, unique=True).map(sorted),
    channels=st.sampled_from([1, 2]),
)
def test_parts_of_any_size_become_the_whole(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], channels: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    samples = np.random.default_rng(3).uniform(-1, 1, (200, channels))
    whole = write(folder / "whole.wav", samples, BitDepth.F32)
    parts = [
        write(folder / f"{start}.wav", samples[start:end], BitDepth.F32)
        for start, end in pairwise([0, *cuts, 200])
    ]
    size, digest = join(parts, folder / "joined.wav")
    assert (folder / "joined.wav").read_bytes() == whole.read_bytes()
    assert size == whole.stat().st_size
    assert len(digest) == 64


def test_an_odd_number_of_bytes_is_padded_once(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{i}.wav", np.zeros((3, 1)), BitDepth.B24) for i in range(3)]
    whole = write(tmp_path / "whole.wav", np.zeros((9, 1)), BitDepth.B24)
    join(parts, tmp_path / "joined.wav")
    joined = (tmp_path / "joined.wav").read_bytes()
    assert len(joined) == whole.stat().st_size
    assert layout(tmp_path / "joined.wav").frames == 9


@pytest.mark.parametrize("frames", [1000, 2**32 // 8 - 12, 2**32 // 8, 2**33])
def test_the_header_is_a_workers_also_beyond_4_gib(tmp_path: Path, frames: int) -> None:
    path = write(tmp_path / "part.wav", np.zeros((5, 2)), BitDepth.F32)
    assert _header(layout(path), frames * 8) == header(BitDepth.F32, RATE, 2, frames)


def test_a_header_without_room_for_64_bits_is_refused_beyond_4_gib() -> None:
    head = struct.pack(
        "<4sI4s 4sIHHIIHH 4sI", b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 2, RATE, 0, 4, 16, b"data", 0
    )
    with pytest.raises(NoWavError, match="no room"):
        _header(Layout(head, RATE, 4, 1), 2**33)


@pytest.mark.parametrize("spoil", [lambda b: b[:30], lambda b: b[:-4], lambda b: b"x" + b])
def test_what_is_no_whole_wav_file_is_refused(tmp_path: Path, spoil: object) -> None:
    path = write(tmp_path / "part.wav", np.zeros((50, 1)), BitDepth.F32)
    assert callable(spoil)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(NoWavError):
        layout(path)


def test_parts_of_two_kinds_are_not_joined(tmp_path: Path) -> None:
    one = write(tmp_path / "one.wav", np.zeros((5, 1)), BitDepth.F32)
    two = write(tmp_path / "two.wav", np.zeros((5, 2)), BitDepth.F32)
    with pytest.raises(NoWavError, match="one kind"):
        join([one, two], tmp_path / "joined.wav")
