"""Whatever somebody sends: stems of the same length, with a word on what is wrong, or a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stemserve.audio import Block
from stemserve.task import Failed, Finished, Logged

from tests.service.networks import make_checkpoint
from tests.service.separating import MODULE_SECONDS, SeparationProcess, separation_process, task
from tests.service.sounds import read_audio, tones, write_audio, write_video

STEMS = ("vocals", "instrumental", "drums", "bass", "other")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeparationProcess]:
    """One process for the module's tests, with a small random network as htdemucs."""
    weights = tmp_path_factory.mktemp("weights")
    make_checkpoint(weights, "955717e8")
    with separation_process(
        deadline_s=MODULE_SECONDS, STEMSERVE_WEIGHTS=str(weights), OMP_NUM_THREADS="1"
    ) as running:
        yield running


def separated(
    process: SeparationProcess, path: Path, out: Path, **changes: object
) -> tuple[dict[str, Block], list[str]]:
    """All stems, and what the log said."""
    process.send(task(path, out, stems=STEMS, **changes))
    *events, last = process.events()
    assert isinstance(last, Finished), last
    stems = {name: read_audio(out / f"{name}.wav")[0] for name in STEMS}
    return stems, [event.line for event in events if isinstance(event, Logged)]


def refused(process: SeparationProcess, path: Path, out: Path, **changes: object) -> str:
    """Why it fails; it leaves nothing."""
    failed = process.outcome(task(path, out, **changes))
    assert isinstance(failed, Failed), failed
    assert failed.error_type == "not-audio"
    assert "Traceback" not in failed.error
    assert not list(out.glob("*"))
    return failed.error


@pytest.mark.parametrize("preset", ["center", "htdemucs"])
@pytest.mark.parametrize(
    ("channels", "rate", "seconds", "layout"),
    [
        (1, 44100, 1, "mono"),
        (2, 8000, 1, "stereo"),
        (2, 192000, 0.5, "stereo"),
        (8, 48000, 0.5, "7.1"),
        (2, 44100, 0.1, "stereo"),
    ],
)
def test_any_shape_of_sound_becomes_stems_that_add_up(
    process: SeparationProcess,
    tmp_path: Path,
    preset: str,
    channels: int,
    rate: int,
    seconds: float,
    layout: str,
) -> None:
    frames = round(rate * seconds)
    path = write_audio(
        tmp_path / "in.wav",
        tones(frames, channels, rate),
        rate,
        "pcm_f32le",
        sample_format="flt",
        layout=layout,
    )
    stems, lines = separated(process, path, tmp_path / "out", preset=preset)
    mix, _ = read_audio(path)
    assert mix.shape == (frames, min(channels, 2))
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], mix, atol=1e-6)
    assert {sound.shape for sound in stems.values()} == {mix.shape}
    assert any("mixed down" in line for line in lines) == (channels > 2)


@pytest.mark.parametrize("preset", ["center", "htdemucs"])
@pytest.mark.parametrize("kind", ["silence", "square", "nan"])
def test_any_samples_become_stems_of_numbers(
    process: SeparationProcess, tmp_path: Path, preset: str, kind: str
) -> None:
    sound = np.sign(tones(30_000))
    if kind == "silence":
        sound[:] = 0
    elif kind == "nan":
        sound[1000], sound[2000, 1], sound[20_000] = np.nan, np.inf, -np.inf
    path = write_audio(tmp_path / "in.wav", sound, 44100, "pcm_f32le", sample_format="flt")
    stems, lines = separated(process, path, tmp_path / "out", preset=preset)
    for stem in stems.values():
        assert stem.shape == sound.shape
        assert np.isfinite(stem).all()
    mix = np.nan_to_num(sound, nan=0, posinf=0, neginf=0)
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], mix, atol=1e-5)
    if kind == "silence" and preset == "center":
        assert not any(stem.any() for stem in stems.values())
    assert any("no number" in line for line in lines) == (kind == "nan")
    if kind == "nan":
        assert "no number" in refused(process, path, tmp_path / "strict", strict=True)


def test_a_video_gives_the_stems_of_its_sound(process: SeparationProcess, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", tones(96_000, 2, 48000), 48000)
    stems, _ = separated(process, path, tmp_path / "out", strict=True)
    assert {sound.shape for sound in stems.values()} == {(96_000, 2)}


def test_a_corrupt_packet_in_the_middle_is_silence_in_its_place(
    process: SeparationProcess, tmp_path: Path
) -> None:
    sound = tones(10 * 48000, 2, 48000)
    path = write_audio(tmp_path / "in.m4a", sound, 48000, "aac", sample_format="fltp")
    whole, _ = read_audio(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = np.random.default_rng(0).bytes(1500)
    path.write_bytes(content)
    stems, lines = separated(process, path, tmp_path / "out")
    mix = stems["vocals"] + stems["instrumental"]
    assert mix.shape == whole.shape
    damaged = np.abs(mix - whole).max(axis=1) > 1e-3
    assert 0 < damaged.sum() < 48_000
    assert not damaged[: 3 * 48000].any()
    assert not damaged[-3 * 48000 :].any()
    assert any("damaged" in line and "silence there" in line for line in lines)
    assert "strict" in refused(process, path, tmp_path / "strict", strict=True)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"),
    [("in.wav", "pcm_s16le", "s16"), ("in.flac", "flac", "s16"), ("in.m4a", "aac", "fltp")],
)
def test_a_header_that_promises_more_than_there_is_is_refused(
    process: SeparationProcess, tmp_path: Path, name: str, codec: str, sample_format: str
) -> None:
    path = write_audio(tmp_path / name, tones(300_000), 44100, codec, sample_format=sample_format)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cut short" in refused(process, path, tmp_path / "out")


def test_an_mp3_that_promises_more_is_taken_as_it_is_unless_strict(
    process: SeparationProcess, tmp_path: Path
) -> None:
    path = write_audio(
        tmp_path / "in.mp3", tones(441_000), 44100, "libmp3lame", sample_format="fltp"
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    stems, lines = separated(process, path, tmp_path / "out")
    assert 200_000 < len(stems["vocals"]) < 250_000
    assert any("cut short" in line for line in lines)
    assert "cut short" in refused(process, path, tmp_path / "strict", strict=True)


def test_what_some_program_has_put_behind_the_sound_is_no_damage(
    process: SeparationProcess, tmp_path: Path
) -> None:
    sound = tones(2 * 44100)
    path = write_audio(tmp_path / "in.mp3", sound, 44100, "libmp3lame", sample_format="fltp")
    content = path.read_bytes()
    path.write_bytes(content + content[-200:-100] + b"LYRICSBEGIN la la la LYRICS200" * 40)
    stems, lines = separated(process, path, tmp_path / "out", strict=True)
    assert abs(len(stems["vocals"]) - len(sound)) <= 1152
    assert not any("damaged" in line for line in lines)


def test_a_protected_track_is_refused(process: SeparationProcess, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "in.m4a", tones(100_000), 44100, "aac", sample_format="fltp")
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"drms"))
    assert "protected" in refused(process, path, tmp_path / "out")


@pytest.mark.parametrize("stem_format", ["wav", "flac", "mp3", "opus", "m4a"])
def test_a_disk_that_is_full_in_mid_way_leaves_nothing(tmp_path: Path, stem_format: str) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses in the same place."""
    path = write_audio(tmp_path / "in.flac", tones(441_000), 44100, "flac")
    with separation_process(largest_file=1_000_000) as limited:
        failed = limited.outcome(task(path, tmp_path / "out", format=stem_format))
        assert isinstance(failed, Failed)
        assert failed.error_type == "disk-full"
        assert not list((tmp_path / "out").iterdir())
        part = {"start_seconds": 1, "end_seconds": 2}
        again = limited.outcome(task(path, tmp_path / "out", format=stem_format, range=part))
        assert isinstance(again, Finished)
