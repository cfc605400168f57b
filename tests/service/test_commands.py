"""The commands that separate without a server, as their users run them: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import av
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemserve.commands.tracks import place_names

from tests.service.sounds import read_audio, tones, write_audio
from tests.service.worker import STAND_IN, eventually

DEADLINE_S = 90
RATE = 44100
DONE = {"models": "done", "cutting": "done", "inference": "done", "conversion": "done"}


def environment(**settings: str) -> dict[str, str]:
    """The environment of a call, with settings of the worker by their names."""
    given = {f"STEMSERVE_{name.upper()}": value for name, value in settings.items()}
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **given}


def call(program: str, *words: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end."""
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *map(str, words)],
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def progress(folder: Path) -> dict[str, Any]:
    """What progress.txt says."""
    said: dict[str, Any] = json.loads((folder / "progress.txt").read_text())
    return said


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of stereo."""
    return write_audio(
        tmp_path_factory.mktemp("songs") / "a song.wav", tones(3 * RATE), RATE, "pcm_s16le"
    )


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder behind a URL on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_container_command_leaves_what_the_template_left(song: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call(
        "demucs-separate", "--input", song, "--output", out,
        "--interval-cut", "1,2.5", "--chunk-size", 60000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = progress(out)
    assert (said["state"], said["tasks"], said["error"]) == ("completed", DONE, None)
    assert said["details"] == {"completed_segments": 3, "total_segments": 3, "percent": 100.0}
    assert said["elapsed_seconds"] > 0
    names = {path.name for path in out.iterdir() if path.suffix != ".json"}
    assert names == {
        *("vocals.wav", "instrumental.wav", "instrumental.mp3"),
        *("progress.txt", "demucs.log"),
    }
    mix, _ = read_audio(song)
    stems = [read_audio(out / f"{stem}.wav")[0] for stem in ("vocals", "instrumental")]
    np.testing.assert_allclose(sum(stems), mix, atol=1e-6)
    with av.open(out / "instrumental.mp3") as file:
        assert file.streams.audio[0].codec_context.channels == 1
    log = (out / "demucs.log").read_text()
    assert "--chunk-size 60000" in log
    assert "completed" in log
    assert log.count("\n") == done.stdout.count("\n")


def test_the_container_command_gives_every_stem(song: Path, tmp_path: Path) -> None:
    assert (
        call("demucs-separate", "--input", song, "--output", tmp_path, "--all-stems").returncode
        == 0
    )
    assert len(list(tmp_path.glob("*.wav"))) == 5


def test_the_container_command_fails_over_a_damaged_input_when_asked(tmp_path: Path) -> None:
    song = tmp_path / "damaged.wav"
    sound = np.zeros((44100, 2), np.float32)
    sound[1000] = np.nan
    write_audio(song, sound, 44100, "pcm_f32le", sample_format="flt")
    words = ("demucs-separate", "--input", song, "--output", tmp_path / "out")
    assert call(*words, "--strict").returncode == 1
    assert "no number" in progress(tmp_path / "out")["error"]
    assert call(*words, "--no-strict").returncode == 0
    assert progress(tmp_path / "out")["state"] == "completed"


def test_the_container_command_fetches_a_url(song: Path, tmp_path: Path) -> None:
    left = tmp_path / ".input-of-a-killed-run"
    left.mkdir()
    with served(song.parent) as url:
        words = ("--input", f"{url}/a%20song.wav", "--output", tmp_path)
        refused = call("demucs-separate", *words)
        assert refused.returncode == 1
        assert "private address" in progress(tmp_path)["error"]
        done = call("demucs-separate", *words, fetch_private="true")
    assert done.returncode == 0, done.stderr
    assert progress(tmp_path)["state"] == "completed"
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".")} == set()
    assert (tmp_path / "vocals.wav").exists()


def test_the_container_command_runs_networks_and_bounds_their_memory(tmp_path: Path) -> None:
    from tests.service.networks import HT, make_checkpoint

    song = write_audio(tmp_path / "song.wav", tones(RATE // 2), RATE, "pcm_s16le")
    weights = tmp_path / "weights"
    weights.mkdir()
    make_checkpoint(weights, HT)
    words = ("demucs-separate", "--input", song, "--output", tmp_path, "--chunk-size", 700_000)
    done = call(*words, preset="htdemucs", weights=str(weights), threads="2")
    assert done.returncode == 0, done.stdout
    assert {"vocals.wav", "instrumental.mp3"} <= {path.name for path in tmp_path.iterdir()}
    assert "2 Demucs windows" in (tmp_path / "demucs.log").read_text()


def test_the_container_command_tells_its_version() -> None:
    done = call("demucs-separate", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("demucs-separate ")


@pytest.mark.parametrize(
    ("words", "settings", "why"),
    [
        (("--input", "/not/there.wav"), {}, "no file"),
        (("--input", __file__), {}, "audio"),
        (("--input", __file__, "--interval-cut", "9,3"), {}, "must rise"),
        (("--input", __file__), {"preset": "htdemucs"}, "955717e8"),
        (("--input", __file__), {"preset": "center2"}, "center"),
        (("--input", __file__), {"separation_command": '["/not/there"]'}, "cannot be started"),
        (("--input", "ftp://example.org/a.wav"), {}, "http"),
    ],
)
def test_the_container_command_says_why_it_failed(
    tmp_path: Path, words: tuple[str, ...], settings: dict[str, str], why: str
) -> None:
    done = call("demucs-separate", *words, "--output", tmp_path / "out", **settings)
    assert done.returncode == 1
    said = progress(tmp_path / "out")
    assert said["state"] == "error"
    assert why in said["error"]
    assert why in done.stderr
    assert why in (tmp_path / "out" / "demucs.log").read_text()
    assert not list((tmp_path / "out").glob("*.wav"))


def test_the_container_command_survives_the_death_of_the_separation(tmp_path: Path) -> None:
    order = tmp_path / "order"
    order.write_text("die 2")
    out = tmp_path / "out"
    words = ("demucs-separate", "--input", order, "--output", out)
    done = call(*words, separation_command=json.dumps(STAND_IN))
    assert done.returncode == 0
    assert progress(out)["state"] == "completed"
    assert "attempt 2 of 3" in (out / "demucs.log").read_text()
    order.write_text("die 9")
    done = call(*words, separation_command=json.dumps(STAND_IN))
    assert done.returncode == 1
    assert "SIGKILL" in progress(out)["error"]
    assert "3 times" in progress(out)["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_and_its_separation(
    tmp_path: Path, number: signal.Signals
) -> None:
    order = tmp_path / "order"
    order.write_text("hold")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [Path(sys.executable).with_name("demucs-separate"), "--input", order, "--output", out],
        env=environment(separation_command=json.dumps(STAND_IN)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: (out / "progress.txt").exists() and progress(out)["details"]["percent"])
        (child,) = psutil.Process(process.pid).children()
        second = call("demucs-separate", "--input", order, "--output", out)
        assert second.returncode == 1
        assert "another run" in second.stderr
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == 128 + number
    finally:
        process.kill()
        process.wait()
    assert not child.is_running()
    said = progress(out)
    assert said["state"] == "error"
    assert number.name in said["error"]
    assert {path.name for path in out.iterdir()} == {"progress.txt", "demucs.log"}


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    place = tmp_path / "a file"
    place.write_text("")
    done = call("demucs-separate", "--input", __file__, "--output", place)
    assert done.returncode == 1
    assert str(place) in done.stderr


def test_songs_are_separated_one_after_another(song: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call(
        "stemserve", "separate", song, __file__, song, "--out", out, "--stems", "drums,bass",
        "--format", "flac", "--bit-depth", "24", "--mono", "--json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    first, bad, again = json.loads(done.stdout)["tracks"]
    assert first["place"] == str(out / "a song")
    assert again["place"] == str(out / "a song-2")
    assert {file["name"] for file in first["results"]} >= {"drums.flac", "bass.flac"}
    stems = [[f for f in track["results"] if f["stem"]] for track in (first, again)]
    assert stems[0] == stems[1]
    assert first["realtime"] > 0
    assert (bad["error_type"], bad["results"]) == ("not-audio", [])
    with av.open(out / "a song" / "drums.flac") as file:
        context = file.streams.audio[0].codec_context
        assert (context.channels, context.sample_rate) == (1, RATE)
    assert {path.name for path in out.iterdir()} == {"a song", "a song-2"}
    assert "a song: " in done.stderr
    assert "%" in done.stderr


def test_all_stems_of_a_song_add_up(song: Path, tmp_path: Path) -> None:
    done = call("stemserve", "separate", song, "--out", tmp_path, "--stems", "all")
    assert done.returncode == 0, done.stderr
    mix, _ = read_audio(song)
    parts = ("vocals", "drums", "bass", "other")
    stems = [read_audio(tmp_path / "a song" / f"{stem}.wav")[0] for stem in parts]
    np.testing.assert_allclose(sum(stems), mix, atol=1e-5)
    assert not (tmp_path / "a song" / "instrumental.mp3").exists()


def test_a_part_of_a_song_in_another_format(song: Path, tmp_path: Path) -> None:
    words = ("--at", "0-0.5", "--format", "flac", "--stems", "no_drums", "--clip", "rescale")
    done = call("stemserve", "separate", song, "--out", tmp_path, *words, "--strict")
    assert done.returncode == 0, done.stderr
    sound, rate = read_audio(tmp_path / "a song" / "no_drums.flac")
    assert len(sound) == rate // 2
    told = json.loads((tmp_path / "a song" / "separation.json").read_text())
    assert told["parameters"]["range"] == {"start_seconds": 0, "end_seconds": 0.5}
    assert told["parameters"]["clip"] == "rescale"
    assert told["parameters"]["strict"]


def test_an_input_is_never_written_over(song: Path, tmp_path: Path) -> None:
    place = tmp_path / "vocals"
    place.mkdir()
    mine = place / "vocals.wav"
    mine.write_bytes(song.read_bytes())
    done = call("stemserve", "separate", mine, "--out", tmp_path, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["tracks"][0]["error_type"] == "invalid-request"
    assert mine.read_bytes() == song.read_bytes()


@pytest.mark.parametrize(
    ("words", "word", "said"),
    [
        (("--preset", "centre"), "unknown-name", "center"),
        (("--stems", "drumz"), "unknown-name", "drums"),
        (("--format", "flak"), "invalid-request", "flac"),
        (("--format", "mp3", "--bit-depth", "16"), "invalid-request", "bit depth"),
        (("--interval-cut", "5,x"), "invalid-request", "'x'"),
        (("--format", "stem.mp4", "--stems", "bass"), "invalid-request", "leave out stems"),
        (("--clip", "loud"), "invalid-request", "rescale"),
        (("--preset", "htdemucs"), "preset-unavailable", "955717e8"),
        (("--preset", "htdemucs", "--licence", "granted"), "preset-unavailable", "no grant"),
        (("--licence", "mine"), "settings", "licence"),
    ],
)
def test_a_wrong_wish_is_told_before_anything_is_done(
    song: Path, tmp_path: Path, words: tuple[str, ...], word: str, said: str
) -> None:
    done = call("stemserve", "separate", song, "--out", tmp_path / "out", *words, "--json")
    assert done.returncode == 2
    problem = json.loads(done.stdout)
    assert problem["type"] == word
    assert said in problem["error"]
    assert not list((tmp_path / "out").glob("*"))


@given(inputs=st.lists(st.text(min_size=1), max_size=8))
def test_every_input_gets_a_folder_of_its_own(inputs: list[str]) -> None:
    names = place_names(inputs)
    assert len({name.casefold() for name in names}) == len(inputs)
    for name in names:
        assert name == Path(name).name
        assert name not in ("", ".", "..")
        assert not name.startswith(".")
        assert name.isprintable()
        assert len(name.encode()) <= 210
