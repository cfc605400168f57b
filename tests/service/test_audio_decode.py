"""Whatever FFmpeg reads becomes blocks of float32; what is no audio is told apart, with words."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from stemserve.audio.channels import mixdown
from stemserve.audio.decode import BLOCK_FRAMES, decode, probe
from stemserve.errors import NotAudioError

from tests.service.sounds import read_audio, tones, write_audio, write_video


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "close"),
    [
        ("a.wav", "pcm_s16le", "s16", 1e-4),
        ("a.wav", "pcm_u8", "u8", 1e-2),
        ("a.wav", "pcm_s24le", "s32", 1e-6),
        ("a.wav", "pcm_f32le", "flt", 0),
        ("a.aiff", "pcm_s16be", "s16", 1e-4),
        ("a.flac", "flac", "s16", 1e-4),
        ("a.flac", "flac", "s32", 1e-6),
        ("a.mp3", "libmp3lame", "fltp", 0.05),
        ("a.m4a", "alac", "s16p", 1e-4),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_back_as_it_was(
    tmp_path: Path, name: str, codec: str, sample_format: str, close: float, channels: int
) -> None:
    sound = tones(100_003, channels)
    path = write_audio(tmp_path / name, sound, 44100, codec, sample_format=sample_format)
    read, rate = read_audio(path)
    assert rate == 44100
    assert read.shape == sound.shape
    assert read.dtype == np.float32
    # The first and last frames of a lossy codec are its own affair.
    inner = slice(3000, -3000) if close > 0.02 else slice(None)
    assert np.abs(read - sound)[inner].max() <= close


@pytest.mark.parametrize("frames", [1, 2, 1023, 44100])
@pytest.mark.parametrize("rate", [8000, 11025, 37123, 96000, 192000])
def test_any_length_at_any_rate(tmp_path: Path, frames: int, rate: int) -> None:
    path = write_audio(tmp_path / "odd.wav", tones(frames, 1), rate, "pcm_s16le")
    read, read_rate = read_audio(path)
    assert (len(read), read_rate) == (frames, rate)
    assert probe(path).frames == frames


def test_a_name_with_spaces_and_letters_of_the_world(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "Ü ber – 歌.flac", tones(5000), 44100, "flac")
    assert len(read_audio(path)[0]) == 5000


def test_a_video_gives_its_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", tones(48000, rate=48000), 48000)
    read, rate = read_audio(path)
    assert rate == 48000
    assert read.shape[1] == 2
    assert 48000 <= len(read) <= 48000 + 2048


def test_surround_is_mixed_down_without_clipping(tmp_path: Path) -> None:
    sound = np.full((9600, 6), 0.99, np.float32)
    sound[:4800] = 0
    sound[:4800, 0] = 0.9  # front left alone
    path = write_audio(
        tmp_path / "surround.wav", sound, 96000, "pcm_f32le", sample_format="flt", layout="5.1"
    )
    facts = probe(path)
    read, _ = read_audio(path)
    assert (facts.rate, facts.channels) == (96000, 2)
    assert any("mixed down" in remark for remark in facts.remarks)
    assert read[100, 0] > 0.3
    assert read[100, 1] == 0
    assert np.abs(read).max() <= 1


def test_the_mixdown_keeps_sides_and_leaves_out_the_subwoofer() -> None:
    matrix = mixdown(["FL", "FR", "FC", "LFE", "BL", "BR"])
    assert matrix is not None
    np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=1e-6)
    np.testing.assert_array_equal(matrix[3], 0)
    np.testing.assert_array_equal(matrix[0], matrix[1][::-1])
    assert matrix[2, 0] == matrix[2, 1]
    assert mixdown(["FL", "FR"]) is None
    assert mixdown(["FC"]) is None


def test_blocks_are_small_however_long_the_file(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "long.flac", tones(1_000_000, 1), 44100, "flac")
    sizes = [len(block) for block in decode(path, probe(path))]
    assert sum(sizes) == 1_000_000
    assert max(sizes) < 2 * BLOCK_FRAMES


def test_samples_that_are_no_number_become_silence(tmp_path: Path) -> None:
    sound = tones(1000)
    sound[10], sound[20] = np.nan, np.inf
    path = write_audio(tmp_path / "nan.wav", sound, 44100, "pcm_f32le", sample_format="flt")
    read, _ = read_audio(path)
    assert np.isfinite(read).all()
    np.testing.assert_array_equal(read[[10, 20]], 0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"Dear worker,\nthis is a letter.\n" * 40, "no audio"),
        (bytes(range(256)) * 400, "no audio"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "no audio"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.wav\n#EXT-X-ENDLIST\n", "no audio"),
        (b"ffconcat version 1.0\nfile other.wav\n", "no audio"),
    ],
)
@pytest.mark.parametrize("name", ["song.wav", "song.mp3", "song"])
def test_what_is_no_audio_is_told(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    write_audio(tmp_path / "other.wav", tones(5000), 44100, "pcm_s16le")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(NotAudioError, match=says):
        read_audio(path)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"),
    [
        ("cut.wav", "pcm_s16le", "s16"),
        ("cut.flac", "flac", "s16"),
        ("cut.aiff", "pcm_s16be", "s16"),
        ("cut.m4a", "aac", "fltp"),
    ],
)
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_a_file_cut_short_is_told(
    tmp_path: Path, name: str, codec: str, sample_format: str, kept: float
) -> None:
    sound = tones(441_000)
    whole = write_audio(tmp_path / name, sound, 44100, codec, sample_format=sample_format)
    content = whole.read_bytes()
    whole.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(NotAudioError, match="cut short"):
        read_audio(whole)


def test_an_mp3_is_taken_as_long_as_it_is(tmp_path: Path) -> None:
    """An MP3 is a stream without a promise: many sound ones disagree with their own header."""
    path = write_audio(
        tmp_path / "cut.mp3", tones(441_000), 44100, "libmp3lame", sample_format="fltp"
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    facts = probe(path)
    read, _ = read_audio(path)
    assert 200_000 < len(read) < 250_000
    assert any("cut short" in damage for damage in facts.damage)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_recording_of_unknown_length_is_whole(tmp_path: Path, size: int) -> None:
    path = write_audio(tmp_path / "piped.wav", tones(44100), 44100, "pcm_s16le")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert len(read_audio(path)[0]) == 44100


def test_a_protected_track_is_told(tmp_path: Path) -> None:
    """FairPlay's mark in the place of the codec's, and sound that is encrypted."""
    path = write_audio(tmp_path / "a.m4a", tones(441_000), 44100, "aac", sample_format="fltp")
    content = bytearray(path.read_bytes().replace(b"mp4a", b"drms"))
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[begin:end] = np.random.default_rng(0).bytes(end - begin)
    path.write_bytes(content)
    with pytest.raises(NotAudioError, match="protected"):
        read_audio(path)


def test_a_video_without_sound_is_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "silent.mp4", None)
    with pytest.raises(NotAudioError, match="no audio stream"):
        read_audio(path)


def test_a_rate_that_changes_is_told(tmp_path: Path) -> None:
    """Two MP3 files end to end, as some programs join them."""
    parts = [
        write_audio(
            tmp_path / f"{rate}.mp3",
            tones(2 * rate, 2, rate),
            rate,
            "libmp3lame",
            sample_format="fltp",
        ).read_bytes()
        for rate in (44100, 48000)
    ]
    (tmp_path / "joined.mp3").write_bytes(b"".join(parts))
    with pytest.raises(NotAudioError, match="change within the file"):
        read_audio(tmp_path / "joined.mp3")


def test_a_damaged_middle_is_survived_and_a_damaged_whole_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((441_000, 2)).astype(np.float32) * 0.1
    path = write_audio(tmp_path / "damaged.flac", noise, 44100, "flac")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    path.write_bytes(content)
    assert len(read_audio(path)[0]) > 400_000
    content[10_000:-10] = bytes(len(content) - 10_010)
    path.write_bytes(content)
    with pytest.raises(NotAudioError):
        read_audio(path)
