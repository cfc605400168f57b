"""The separation process as the API drives it: tasks in, events out, whole results or none."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stemserve.schema import SIDECAR, TaskState
from stemserve.task import Advanced, Failed, Finished, Logged

from tests.sample import SONG
from tests.service.separating import MODULE_SECONDS, SeparationProcess, separation_process, task
from tests.service.sounds import read_audio, tones, write_audio


def sounds(done: Finished) -> dict[str, str]:
    """The digests of all results but the one that tells when it was made."""
    return {result.name: result.sha256 for result in done.results if result.name != SIDECAR}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeparationProcess]:
    """One process for the module's tests, without weights: it must outlive every failure."""
    weights = tmp_path_factory.mktemp("weights")
    with separation_process(deadline_s=MODULE_SECONDS, STEMSERVE_WEIGHTS=str(weights)) as running:
        yield running


def test_it_says_what_it_can(process: SeparationProcess) -> None:
    presets = {preset.name: preset for preset in process.started.presets}
    assert process.started.device
    assert presets["center"].available
    assert presets["center"].lacks is None
    assert not presets["htdemucs"].available
    assert "955717e8" in (presets["htdemucs"].lacks or "")
    assert "STEMSERVE_WEIGHTS" in (presets["htdemucs"].lacks or "")


def test_a_song_becomes_stems(process: SeparationProcess, tmp_path: Path) -> None:
    process.send(task(SONG, tmp_path / "out", template_mp3=True))
    *events, last = process.events()
    assert isinstance(last, Finished)
    names = {"vocals.wav", "instrumental.wav", "instrumental.mp3", SIDECAR}
    assert {result.name for result in last.results} == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    for result in last.results:
        content = (tmp_path / "out" / result.name).read_bytes()
        assert result.size == len(content)
        assert result.sha256 == hashlib.sha256(content).hexdigest()
        assert result.stem == (None if result.name == SIDECAR else result.name.split(".")[0])
    song, rate = read_audio(SONG)
    vocals, vocals_rate = read_audio(tmp_path / "out" / "vocals.wav")
    rest, _ = read_audio(tmp_path / "out" / "instrumental.wav")
    mp3, _ = read_audio(tmp_path / "out" / "instrumental.mp3")
    assert vocals_rate == rate
    np.testing.assert_allclose(vocals + rest, song, atol=1e-6)
    assert mp3.shape == (len(song), 1)
    assert last.duration_seconds == pytest.approx(len(song) / rate)
    advanced = [event for event in events if isinstance(event, Advanced)]
    percents = [event.details.percent for event in advanced]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert all(percent < 100 for percent in percents[:-1])
    assert all(state is TaskState.DONE for _, state in advanced[-1].tasks)


def test_every_stem_format_and_mono(process: SeparationProcess, tmp_path: Path) -> None:
    source = write_audio(tmp_path / "in.wav", tones(50_000, 2, 48000), 48000, "pcm_s16le")
    stems = ["vocals", "drums", "bass", "other", "instrumental"]
    for stem_format, depth in (
        ("wav", "24"),
        ("flac", "24"),
        ("flac", None),
        ("mp3", None),
        ("opus", None),
        ("m4a", None),
    ):
        out = tmp_path / f"{stem_format}{depth}"
        done = process.outcome(
            task(source, out, stems=stems, format=stem_format, bit_depth=depth, mono=True)
        )
        assert isinstance(done, Finished)
        names = {f"{stem}.{stem_format}" for stem in stems}
        assert {result.name for result in done.results} == names | {SIDECAR}
        for name in names:
            sound, rate = read_audio(out / name)
            assert (sound.shape, rate) == ((50_000, 1), 48000)


@pytest.mark.parametrize(("frames", "rate", "channels"), [(1, 44100, 2), (8000, 8000, 1)])
def test_length_rate_and_channels_are_the_inputs(
    process: SeparationProcess, tmp_path: Path, frames: int, rate: int, channels: int
) -> None:
    source = write_audio(tmp_path / "in.wav", tones(frames, channels), rate, "pcm_s16le")
    done = process.outcome(task(source, tmp_path / "out", template_mp3=frames > 1))
    assert isinstance(done, Finished)
    for stem in ("vocals", "instrumental"):
        sound, stem_rate = read_audio(tmp_path / "out" / f"{stem}.wav")
        assert (sound.shape, stem_rate) == ((frames, channels), rate)


def test_surround_becomes_stereo_stems(process: SeparationProcess, tmp_path: Path) -> None:
    source = write_audio(tmp_path / "in.flac", tones(48_000, 6, 96000), 96000, "flac")
    process.send(task(source, tmp_path / "out"))
    *events, last = process.events()
    assert isinstance(last, Finished)
    assert any(isinstance(event, Logged) and "mixed down" in event.line for event in events)
    sound, rate = read_audio(tmp_path / "out" / "vocals.wav")
    assert (sound.shape, rate) == ((48_000, 2), 96000)


def test_cuts_count_segments_and_change_nothing(process: SeparationProcess, tmp_path: Path) -> None:
    whole = process.outcome(task(SONG, tmp_path / "whole"))
    process.send(task(SONG, tmp_path / "cut", cut_points=[3.5, 10, 999]))
    *events, last = process.events()
    assert isinstance(whole, Finished)
    assert isinstance(last, Finished)
    assert sounds(whole) == sounds(last)
    details = [event.details for event in events if isinstance(event, Advanced)]
    counts = [detail.completed_segments for detail in details if detail.total_segments]
    assert set(counts) == {0, 1, 2, 3}
    assert details[-1].total_segments == 3


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b"a letter to the worker\n" * 50, "no audio")]
)
def test_no_audio_fails_and_leaves_nothing(
    process: SeparationProcess, tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "in").write_bytes(content)
    failed = process.outcome(task(tmp_path / "in", tmp_path / "out"))
    assert isinstance(failed, Failed)
    assert failed.error_type == "not-audio"
    assert says in failed.error
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("changes", "error_type", "says"),
    [
        ({"preset": "htdemucs_f"}, "unknown-name", "htdemucs_ft, htdemucs"),
        ({"stems": ["vocal"]}, "unknown-name", "vocals"),
        ({"stems": []}, "unknown-name", "at least one"),
        ({"preset": "htdemucs"}, "preset-unavailable", "955717e8"),
        ({"input_path": "/nowhere/song.flac"}, "no-such-input", "no longer there"),
    ],
)
def test_what_cannot_be_done_is_said(
    process: SeparationProcess,
    tmp_path: Path,
    changes: dict[str, object],
    error_type: str,
    says: str,
) -> None:
    failed = process.outcome(task(SONG, tmp_path / "out", **changes))
    assert isinstance(failed, Failed)
    assert failed.error_type == error_type
    assert says in failed.error
    assert "Traceback" not in failed.error


def test_a_line_that_is_no_task_is_refused(process: SeparationProcess) -> None:
    process.send_line("{}")
    last = process.events()[-1]
    assert isinstance(last, Failed)
    assert last.error_type == "bad-task"


def test_results_beside_others_and_a_predecessors_leavings(
    process: SeparationProcess, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / ".partial").mkdir(parents=True)
    (out / ".partial" / "vocals.wav").write_bytes(b"half")
    (out / "progress.txt").write_text("{}")
    (out / "vocals.wav").write_bytes(b"old")
    assert isinstance(process.outcome(task(SONG, out)), Finished)
    assert {path.name for path in out.iterdir()} == {
        "progress.txt",
        "vocals.wav",
        "instrumental.wav",
        SIDECAR,
    }
    assert (out / "vocals.wav").stat().st_size > 1_000_000


def test_an_output_place_that_cannot_be_written_is_internal(
    process: SeparationProcess, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    failed = process.outcome(task(SONG, tmp_path / "file" / "out"))
    assert isinstance(failed, Failed)
    assert failed.error_type == "internal"
    assert "Traceback" not in failed.error


def test_a_full_disk_fails_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the kernel refuses in the same place."""
    small = write_audio(tmp_path / "small.wav", tones(20_000), 44100, "pcm_s16le")
    with separation_process(largest_file=1_000_000) as limited:
        for stem_format in ("wav", "flac"):
            failed = limited.outcome(task(SONG, tmp_path / "out", format=stem_format))
            assert isinstance(failed, Failed)
            assert failed.error_type == "disk-full"
            assert not list((tmp_path / "out").iterdir())
        assert isinstance(limited.outcome(task(small, tmp_path / "out")), Finished)


def test_the_end_of_its_input_stops_it_in_mid_task(tmp_path: Path) -> None:
    long = write_audio(tmp_path / "long.flac", tones(44100 * 300), 44100, "flac")
    out = tmp_path / "out"
    with separation_process(fates=(0, 1)) as running:  # 1: clearing up took it long
        running.send(task(long, out, format="flac"))
        while not (out / ".partial" / "results" / "vocals.flac").exists():
            running.next()
        # Leaving the block closes its input, and it must end well within the deadline.
    assert [path.name for path in out.iterdir()] == [".partial"]


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The parent's end of the pipe goes with the parent, whatever ends that."""
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'stemserve.separation'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _runs(child):
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def test_neither_torch_nor_sound_is_loaded_to_tell_presets() -> None:
    script = (
        "import sys, stemserve.separation.loop, stemserve.separation.presets as p; p.described()\n"
        "print([m for m in ('torch', 'demucs', 'numpy', 'scipy', 'av', 'soxr') "
        "if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")
