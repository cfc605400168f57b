"""What is written is what was given: length, rate, channels, and no sample wraps around."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stemserve.audio import Block
from stemserve.audio.encode import MP3_RATES, Encoder, Encoding
from stemserve.schema import BitDepth, StemFormat

from tests.service.sounds import read_audio, tones

LOSSLESS = [
    (StemFormat.WAV, BitDepth.B16),
    (StemFormat.WAV, BitDepth.B24),
    (StemFormat.WAV, BitDepth.F32),
    (StemFormat.FLAC, BitDepth.B16),
    (StemFormat.FLAC, BitDepth.B24),
]
STEP = {BitDepth.B16: 2**-15, BitDepth.B24: 2**-23, BitDepth.F32: 0}


def written(path: Path, encoding: Encoding, sound: Block, rate: int, block: int = 4096) -> Encoder:
    """The encoder that wrote the sound, closed."""
    with Encoder(path, encoding, rate, sound.shape[1]) as encoder:
        for at in range(0, len(sound), block):
            encoder.write(sound[at : at + block])
    return encoder


@pytest.mark.parametrize(("stem_format", "depth"), LOSSLESS)
@settings(max_examples=15, deadline=None)
@given(
    frames=st.integers(1, 20_000),
    channels=st.integers(1, 2),
    rate=st.sampled_from([8000, 22050, 37123, 44100, 96000, 192000]),
    block=st.integers(1, 9000),
)
def test_lossless_formats_hold_every_sample(
    tmp_path_factory: pytest.TempPathFactory,
    stem_format: StemFormat,
    depth: BitDepth,
    frames: int,
    channels: int,
    rate: int,
    block: int,
) -> None:
    path = tmp_path_factory.mktemp("out") / "out"
    sound = tones(frames, channels)
    written(path, Encoding(stem_format, depth), sound, rate, max(block, frames // 50))
    read, read_rate = read_audio(path)
    assert (read.shape, read_rate) == (sound.shape, rate)
    assert np.abs(read - sound).max() <= STEP[depth] * 0.5001


@pytest.mark.parametrize(("stem_format", "depth"), LOSSLESS[:2] + LOSSLESS[3:])
def test_beyond_full_scale_is_held_there_and_counted(
    tmp_path: Path, stem_format: StemFormat, depth: BitDepth
) -> None:
    sound = np.array([[1.5], [-1.5], [1.0], [-1.0], [0.999], [100.0]], np.float32)
    encoder = written(tmp_path / "loud", Encoding(stem_format, depth), sound, 44100)
    read, _ = read_audio(tmp_path / "loud")
    np.testing.assert_allclose(
        read[:, 0], np.clip(sound[:, 0], -1, 1 - STEP[depth]), atol=STEP[depth]
    )
    assert encoder.clipped == 4


def test_float_keeps_what_is_beyond_full_scale(tmp_path: Path) -> None:
    sound = np.array([[1.5], [-2.5]], np.float32)
    assert written(tmp_path / "f", Encoding(StemFormat.WAV), sound, 44100).clipped == 0
    np.testing.assert_array_equal(read_audio(tmp_path / "f")[0], sound)


@pytest.mark.parametrize("rate", MP3_RATES)
@pytest.mark.parametrize("frames", [5000, 44101])
def test_mp3_has_the_exact_length(tmp_path: Path, rate: int, frames: int) -> None:
    sound = tones(frames, 2, rate)
    written(tmp_path / "a.mp3", Encoding(StemFormat.MP3), sound, rate)
    read, read_rate = read_audio(tmp_path / "a.mp3")
    assert (read.shape, read_rate) == (sound.shape, rate)
    assert np.abs(read - sound)[2000:-2000].max() < 0.1


@pytest.mark.parametrize(("rate", "held"), [(96000, 48000), (37123, 44100), (4000, 8000)])
def test_mp3_resamples_what_it_cannot_hold(tmp_path: Path, rate: int, held: int) -> None:
    sound = tones(rate, 1, rate)
    written(tmp_path / "a.mp3", Encoding(StemFormat.MP3), sound, rate)
    read, read_rate = read_audio(tmp_path / "a.mp3")
    assert (len(read), read_rate) == (held, held)


def test_mono_is_the_mean_and_vbr_quality_counts(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (88200, 2)).astype(np.float32)
    written(tmp_path / "mono.wav", Encoding(StemFormat.WAV, mono=True), noise, 44100)
    read, _ = read_audio(tmp_path / "mono.wav")
    np.testing.assert_allclose(read[:, 0], noise.mean(axis=1), atol=1e-7)
    sizes = []
    for quality in (0, 2, 6):
        path = tmp_path / f"{quality}.mp3"
        written(path, Encoding(StemFormat.MP3, mono=True, mp3_quality=quality), noise, 44100)
        assert read_audio(path)[0].shape == (88200, 1)
        sizes.append(path.stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_same_sound_gives_the_same_bytes(tmp_path: Path) -> None:
    for stem_format in StemFormat:
        for name in ("a", "b"):
            written(tmp_path / name, Encoding(stem_format), tones(30_000), 44100)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("stem_format", list(StemFormat))
@pytest.mark.parametrize("missing", [1, 100, 3000])
def test_not_one_byte_too_few_goes_unnoticed(
    tmp_path: Path, stem_format: StemFormat, missing: int
) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses in the same place."""
    sound, encoding = tones(100_000), Encoding(stem_format)
    written(tmp_path / "whole", encoding, sound, 44100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (tmp_path / "whole").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            written(tmp_path / "cut", encoding, sound, 44100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
