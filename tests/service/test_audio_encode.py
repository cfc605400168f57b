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
from stemserve.audio.wav import WavFile
from stemserve.schema import BitDepth, StemFormat

from tests.service.sounds import read_audio, tones

LOSSLESS = [
    (StemFormat.WAV, BitDepth.B16),
    (StemFormat.WAV, BitDepth.B24),
    (StemFormat.WAV, BitDepth.F32),
    (StemFormat.FLAC, BitDepth.B16),
    (StemFormat.FLAC, BitDepth.B24),
]
SINGLE = [f for f in StemFormat if f is not StemFormat.STEM_MP4]
COMPRESSED = [f for f in SINGLE if f is not StemFormat.WAV]
STEP = {BitDepth.B16: 2**-15, BitDepth.B24: 2**-23, BitDepth.F32: 0}


def written(path: Path, encoding: Encoding, sound: Block, rate: int, block: int = 4096) -> int:
    """Write a sound in blocks; how many samples were held at full scale."""
    blocks = [sound[at : at + block] for at in range(0, len(sound), block)]
    if encoding.format is StemFormat.WAV:
        assert encoding.depth
        wav = WavFile(path, encoding.depth, rate, sound.shape[1])
        beyond = sum(wav.append(part) for part in blocks)
        wav.complete()
        return beyond
    with Encoder(path, encoding, rate, sound.shape[1]) as encoder:
        for part in blocks:
            encoder.write(part)
    return encoder.clipped


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
    # Half a step of rounding, one of dither.
    assert np.abs(read - sound).max() <= STEP[depth] * 1.5001


@pytest.mark.parametrize(("stem_format", "depth"), LOSSLESS[:2] + LOSSLESS[3:])
def test_beyond_full_scale_is_held_there_and_counted(
    tmp_path: Path, stem_format: StemFormat, depth: BitDepth
) -> None:
    sound = np.array([[1.5], [-1.5], [1.0], [-1.0], [0.999], [100.0]], np.float32)
    beyond = written(tmp_path / "loud", Encoding(stem_format, depth), sound, 44100)
    read, _ = read_audio(tmp_path / "loud")
    np.testing.assert_allclose(
        read[:, 0], np.clip(sound[:, 0], -1, 1 - STEP[depth]), atol=1.5 * STEP[depth]
    )
    assert beyond == 4


def test_float_keeps_what_is_beyond_full_scale(tmp_path: Path) -> None:
    sound = np.array([[1.5], [-2.5]], np.float32)
    assert written(tmp_path / "f", Encoding(StemFormat.WAV), sound, 44100) == 0
    np.testing.assert_array_equal(read_audio(tmp_path / "f")[0], sound)


@pytest.mark.parametrize("rate", MP3_RATES)
@pytest.mark.parametrize("frames", [5000, 44101])
def test_mp3_has_the_exact_length(tmp_path: Path, rate: int, frames: int) -> None:
    sound = tones(frames, 2, rate)
    written(tmp_path / "a.mp3", Encoding(StemFormat.MP3), sound, rate)
    read, read_rate = read_audio(tmp_path / "a.mp3")
    assert (read.shape, read_rate) == (sound.shape, rate)
    assert np.abs(read - sound)[2000:-2000].max() < 0.1


@pytest.mark.parametrize(
    ("stem_format", "rate", "held"),
    [
        (StemFormat.MP3, 96000, 48000),
        (StemFormat.MP3, 37123, 44100),
        (StemFormat.MP3, 4000, 8000),
        (StemFormat.OPUS, 44100, 48000),
        (StemFormat.OPUS, 8000, 48000),
        (StemFormat.M4A, 192000, 96000),
        (StemFormat.M4A, 37123, 44100),
    ],
)
def test_a_rate_that_a_format_cannot_hold_becomes_the_next(
    tmp_path: Path, stem_format: StemFormat, rate: int, held: int
) -> None:
    sound = tones(rate, 1, rate)
    written(tmp_path / "a", Encoding(stem_format), sound, rate)
    read, read_rate = read_audio(tmp_path / "a")
    assert (len(read), read_rate) == (held, held)


@pytest.mark.parametrize("stem_format", [StemFormat.OPUS, StemFormat.M4A])
@pytest.mark.parametrize("frames", [1, 1000, 5000, 48001])
def test_opus_and_m4a_have_the_exact_length(
    tmp_path: Path, stem_format: StemFormat, frames: int
) -> None:
    sound = tones(frames, 2, 48000)
    written(tmp_path / "a", Encoding(stem_format), sound, 48000)
    read, read_rate = read_audio(tmp_path / "a")
    assert (read.shape, read_rate) == (sound.shape, 48000)
    if frames > 5000:
        assert np.abs(read - sound)[2000:-2000].max() < 0.1


def test_mono_is_the_mean_and_vbr_quality_counts(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (88200, 2)).astype(np.float32)
    flac = Encoding(StemFormat.FLAC, BitDepth.B24, mono=True)
    written(tmp_path / "mono.flac", flac, noise, 44100)
    read, _ = read_audio(tmp_path / "mono.flac")
    np.testing.assert_allclose(read[:, 0], noise.mean(axis=1), atol=2e-7)
    sizes = []
    for quality in (0, 2, 6):
        path = tmp_path / f"{quality}.mp3"
        written(path, Encoding(StemFormat.MP3, mono=True, mp3_quality=quality), noise, 44100)
        assert read_audio(path)[0].shape == (88200, 1)
        sizes.append(path.stat().st_size)
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_same_sound_gives_the_same_bytes(tmp_path: Path) -> None:
    for stem_format in SINGLE:
        for name in ("a", "b"):
            written(tmp_path / name, Encoding(stem_format), tones(30_000), 44100)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("stem_format", SINGLE)
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
