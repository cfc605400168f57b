"""Real workers that share a long track, and a run that is killed: as if nothing had happened.

The workers' segments are short here, and each takes its time, so that there is a middle in which
to kill something. `make soak` does the same with a song of three hours.
"""

from __future__ import annotations

import os
import sys
import wave
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.buckets import Store, running_store
from tests.cli.driving import RATE, TOKEN, endpoints, stemctl, tree, write_song
from tests.cli.running import finish, submitting
from tests.service.sounds import tones, write_audio, write_video
from tests.service.worker import RunningWorker, eventually, running_worker

SONG_S = float(os.environ.get("STEMFLEET_TEST_SONG_SECONDS", "121.5"))
SEGMENT_S = SONG_S // 30
WITHIN_S = 120 + SONG_S
SLOW = f"""
import time
from stemserve.separation import perform
from stemserve.separation.__main__ import main
from stemserve.separation.segments import Segments

def commit(self, *arguments, **more):
    time.sleep(0.25)
    committed(self, *arguments, **more)

committed, Segments.commit = Segments.commit, commit
perform.SEGMENT_SECONDS = {SEGMENT_S:.0f}
main()
"""
SEPARATION = (sys.executable, "-c", SLOW)


pytestmark = pytest.mark.timeout(300 + 4 * SONG_S)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningWorker]]:
    """Two workers."""
    folder = tmp_path_factory.mktemp("workers")
    with ExitStack() as running:
        both = [
            running.enter_context(
                running_worker(
                    folder / name, TOKEN, separation_command=SEPARATION, fetch_private=True
                )
            )
            for name in ("one", "two")
        ]
        for worker in both:
            worker.wait_ready()
        yield both


def bad_inputs(folder: Path) -> dict[str, str]:
    """What people send; by name, how it must end."""
    sound = tones(2 * RATE)
    good = write_song(folder / "good.wav", 2)
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no sound in here\n" * 50)
    (folder / "cut.wav").write_bytes(good.read_bytes()[:30])
    (folder / "short.wav").write_bytes(good.read_bytes()[:-RATE])
    nan = sound.copy()
    nan[1000:1010] = np.nan
    write_audio(folder / "nan.wav", nan, RATE, "pcm_f32le", sample_format="flt")
    write_audio(folder / "damaged.m4a", sound, RATE, "aac", sample_format="fltp")
    content = bytearray((folder / "damaged.m4a").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 800] = np.random.default_rng(0).bytes(800)
    (folder / "damaged.m4a").write_bytes(content)
    write_video(folder / "clip.mp4", tones(48_000, 2, 48000), 48000)
    write_video(folder / "mute.mp4", None)
    failing = {"empty.wav", "text.mp3", "cut.wav", "short.wav", "mute.mp4"}
    return {path.name: "failed" if path.name in failing else "done" for path in folder.iterdir()}


def long_song(path: Path, seconds: float) -> Path:
    """A song of seven seconds over and over."""
    with wave.open(str(write_song(path, 7))) as short:
        frames, kind = short.readframes(short.getnframes()), short.getparams()
    left = round(seconds * kind.framerate) * kind.nchannels * kind.sampwidth
    with wave.open(str(path), "wb") as file:
        file.setparams(kind)
        while left:
            file.writeframesraw(frames[:left])
            left -= min(left, len(frames))
    return path


def parts_home(out: Path) -> list[Path]:
    return list(out.glob(".stemctl-*/parts/*/[0-9]*-*"))


def frames_of(trips: list[dict[str, Any]]) -> int:
    """Frames that trips were about; what was raced for counts once."""
    frames = at = 0
    for start, end in sorted((trip["start_frame"], trip["end_frame"]) for trip in trips):
        frames += max(0, end - max(start, at))
        at = max(at, end)
    return frames


def urls(*workers: RunningWorker) -> list[str]:
    return endpoints(*(worker.url for worker in workers))


def test_a_killed_run_over_two_workers_comes_to_what_one_worker_makes(
    tmp_path: Path, pair: list[RunningWorker]
) -> None:
    ends = bad_inputs(tmp_path / "in")
    long_song(tmp_path / "in" / "long.wav", SONG_S)
    ends["long.wav"] = "done"
    words = ["submit", tmp_path / "in", "--bit-depth", "16", "--json"]
    with submitting([*words, "--out", tmp_path / "alone", *urls(pair[0])]) as process:
        alone = finish(process, WITHIN_S)
    assert {Path(t["name"]).name: t["end"] for t in alone.json["tracks"]} == ends

    out = tmp_path / "out"
    words += ["--out", out, *urls(*pair)]
    with submitting(words, TOKEN) as process:
        eventually(lambda: len(parts_home(out)) > 4, deadline_s=WITHIN_S)
        process.kill()
        process.wait()
    home = len(parts_home(out))
    with submitting(words) as process:
        again = finish(process, WITHIN_S)
    found = {Path(t["name"]).name: t["end"] for t in again.json["tracks"]}
    assert {n: e.replace("there", "done") for n, e in found.items()} == ends, again.err
    assert tree(out) == tree(tmp_path / "alone")
    for name in tree(out):
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name

    first = stemctl("report", 1, "--out", out, "--json").json
    second = stemctl("report", 2, "--out", out, "--json").json
    assert (first["run"]["state"], second["run"]["state"]) == ("killed", "ended")
    states = {track["name"]: track["state"] for track in first["tracks"]}
    for track in second["tracks"]:
        before = states[track["name"]]
        assert (track["state"] == "there") == (before == "done"), track
    trips = [t for t in second["trips"] if t["place"] == "long" and t["bore"]]
    assert {trip["slot"] for trip in trips} == {w.url.removeprefix("http://") for w in pair}
    asked = frames_of(trips)
    assert asked <= (SONG_S - (home - 1) * SEGMENT_S) * RATE


@pytest.mark.parametrize("options", [["--format", name] for name in ("flac", "mp3", "stem.mp4")])
def test_formats_that_are_encoded_continue_on_another_worker(
    tmp_path: Path, pair: list[RunningWorker], options: list[str]
) -> None:
    song = long_song(tmp_path / "long.wav", SONG_S / 2)
    words = ["submit", song, *options, "--json"]
    with submitting([*words, "--out", tmp_path / "alone", *urls(pair[1])]) as process:
        alone = finish(process, WITHIN_S)
    assert alone.code == 0, alone.err
    out = tmp_path / "out"
    short_lived = running_worker(tmp_path / "first", TOKEN, separation_command=SEPARATION)
    with short_lived as first:
        first.wait_ready()
        words += ["--out", out, *urls(first, pair[1])]
        with submitting(words, TOKEN) as process:
            eventually(lambda: len(parts_home(out)) > 1, deadline_s=WITHIN_S)
            first.kill()
            answer = finish(process, WITHIN_S)
    assert answer.code == 0, answer.err
    assert list(answer.json["set_aside"]) == [first.url.removeprefix("http://")]
    for name in tree(tmp_path / "alone"):
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["long"]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with a bucket, and its keys in the environment."""
    with running_store() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        running.objects["music/readme.txt"] = b"songs"
        yield running


def test_parts_in_a_bucket_outlive_workers_and_runs_and_never_come_here(
    tmp_path: Path, pair: list[RunningWorker], store: Store
) -> None:
    song = long_song(tmp_path / "long.wav", SONG_S / 2)
    words = ["submit", song, "--format", "flac", "--json"]
    with submitting([*words, "--out", tmp_path / "alone", *urls(pair[1])]) as process:
        alone = finish(process, WITHIN_S)
    assert alone.code == 0, alone.err

    def parts() -> list[str]:
        return sorted(name for name in store.objects if "/.stemctl/parts/" in name)

    words += ["--out", "s3://music/stems"]
    with running_worker(
        tmp_path / "first", TOKEN, separation_command=SEPARATION, fetch_private=True
    ) as first:
        first.wait_ready()
        with submitting([*words, *urls(first, pair[1])], TOKEN) as process:
            eventually(lambda: len(parts()) > 6, deadline_s=WITHIN_S)
            first.kill()
            killed = len(parts())
            eventually(lambda: len(parts()) > killed + 6, deadline_s=WITHIN_S)
            process.kill()
            process.wait()
    kept = parts()
    del store.objects[kept[0]]
    store.objects[kept[2]] = bytes(len(store.objects[kept[2]]))
    with submitting([*words, *urls(*pair)], TOKEN) as process:
        again = finish(process, WITHIN_S)
    assert again.code == 0, again.err
    assert "parts of it are home already" in again.err
    assert "parts of long.wav are no longer in the bucket" in again.err
    assert [track["got"] for track in again.json["tracks"]] == [0]
    assert parts() == []
    for name in ("vocals", "instrumental"):
        made = (tmp_path / "alone" / "long" / f"{name}.flac").read_bytes()
        assert store.objects[f"music/stems/long/{name}.flac"] == made
    told = stemctl("report", 2, "--out", "s3://music/stems", "--json").json
    asked = frames_of([t for t in told["trips"] if t["bore"] and t["start_frame"] is not None])
    # Two parts were lost, and what each of the killed was just putting is not known as whole.
    assert 0 < asked <= (SONG_S / 2 - (len(kept) // 2 - 4) * SEGMENT_S) * RATE
