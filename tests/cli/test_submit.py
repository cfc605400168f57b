"""`stemctl submit` against workers that really separate."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.driving import RATE, endpoints, ends, stemctl, tree, write_song
from tests.service.worker import RunningWorker


def jobs_of(workers: list[RunningWorker]) -> list[str]:
    """The inputs' names of all jobs that the workers know."""
    names = []
    for worker in workers:
        with worker.client() as client:
            names += [job["input_name"] for job in client.get("/jobs").json()["jobs"]]
    return names


def test_a_folder_of_songs_becomes_folders_of_stems_and_a_second_run_does_nothing(
    tmp_path: Path, out: Path, workers: list[RunningWorker], fleet: list[str]
) -> None:
    songs = ["first.wav", "two words.wav", "Größe 日本.wav", "disc 2/first.wav"]
    for number, name in enumerate(songs):
        write_song(tmp_path / "in" / name, 1 + number / 4, 200 + 20 * number)
    command = ["submit", tmp_path / "in", "--out", out, "--stems", "drums,vocals", *fleet]

    first = stemctl(*command, "--json")
    assert first.code == 0, first.err
    assert set(ends(first).values()) == {"done"}
    trips = stemctl("report", "--out", out, "--json").json["trips"]
    assert {trip["slot"] for trip in trips} == {
        worker.url.removeprefix("http://") for worker in workers
    }
    assert tree(out) == sorted(
        f"{song.removesuffix('.wav')}/{stem}.wav" for song in songs for stem in ("drums", "vocals")
    )
    assert not set(map(Path, songs)) & {Path(name) for name in jobs_of(workers)}, (
        "jobs stay on the workers"
    )
    before = {out / name: (out / name).stat().st_mtime_ns for name in tree(out, [])}
    second = stemctl(*command, "--json")
    assert second.code == 0
    assert set(ends(second).values()) == {"there"}
    assert before == {out / name: (out / name).stat().st_mtime_ns for name in tree(out, [])}


def test_people_get_a_table_and_progress_goes_to_standard_error(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    song = write_song(tmp_path / "song.wav")
    answer = stemctl("submit", song, "--out", out, *fleet)
    assert answer.code == 0
    row = next(line for line in answer.out.splitlines() if line.strip().startswith("song.wav"))
    assert "done" in row
    assert str(out / "song") in row
    assert answer.out.splitlines()[-1] == "1 done"
    assert "[1/1] done: song.wav" in answer.err


@pytest.mark.parametrize(
    ("options", "magic"),
    [
        (["--format", "flac"], b"fLaC"),
        (["--format", "wav", "--bit-depth", "16"], b"RIFF"),
        (["--format", "mp3"], b""),
    ],
)
def test_formats(
    tmp_path: Path, out: Path, fleet: list[str], options: list[str], magic: bytes
) -> None:
    song = write_song(tmp_path / "song.wav")
    assert stemctl("submit", song, "--out", out, *options, *fleet).code == 0
    stem = out / "song" / f"vocals.{options[1]}"
    assert stem.read_bytes().startswith(magic)
    assert tree(out) == [f"song/{name}.{options[1]}" for name in ("instrumental", "vocals")]
    if options[-1] == "16":
        with wave.open(str(stem)) as file:
            assert (file.getnframes(), file.getframerate()) == (RATE, RATE)


def test_bad_inputs_are_told_and_the_good_ones_are_done(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    folder = tmp_path / "in"
    good = write_song(folder / "good.wav")
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no sound in here\n" * 50)
    (folder / "cut.wav").write_bytes(good.read_bytes()[:30])
    answer = stemctl("submit", folder, folder / "missing.wav", "--out", out, *fleet, "--json")
    assert answer.code == 1
    by_name = {Path(track["name"]).name: track for track in answer.json["tracks"]}
    assert {name: track["end"] for name, track in by_name.items()} == {
        "good.wav": "done",
        "empty.wav": "failed",
        "text.mp3": "failed",
        "cut.wav": "failed",
        "missing.wav": "failed",
    }
    assert "is empty" in by_name["empty.wav"]["error"]
    assert "no audio" in by_name["text.mp3"]["error"]
    assert "not there" in by_name["missing.wav"]["error"]
    assert "back into" not in answer.err, "what is no audio is tried once"
    assert {name.split("/")[0] for name in tree(out)} == {"good"}


def test_nothing_but_bad_inputs_is_exit_code_2(tmp_path: Path, out: Path, fleet: list[str]) -> None:
    (tmp_path / "text.mp3").write_text("no sound")
    assert stemctl("submit", tmp_path / "text.mp3", "--out", out, *fleet).code == 2
    (tmp_path / "bare").mkdir()
    answer = stemctl("submit", tmp_path / "bare", "--out", out, *fleet)
    assert answer.code == 2
    assert answer.err.startswith("stemctl: no audio in ")
    assert len(answer.err.splitlines()) == 1
    answer = stemctl("submit", "--out", out, *fleet)
    assert answer.code == 2
    assert answer.err.startswith("stemctl: nothing was given: name files")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "centre"], "no preset centre: did you mean center?"),
        (["--stems", "vocal,drums"], "no stem in preset center vocal: did you mean vocals?"),
        (["--format", "flak"], "no format flak: did you mean flac?"),
        (["--format", "flac", "--bit-depth", "32f"], "flac holds bit depth 16 or 24"),
        (["--preset", "htdemucs_ft"], "no worker can serve preset htdemucs_ft: "),
    ],
)
def test_wrong_names_stop_a_run_before_anything_is_sent(
    tmp_path: Path, out: Path, fleet: list[str], options: list[str], words: str
) -> None:
    song = write_song(tmp_path / "song.wav")
    answer = stemctl("submit", song, "--out", out, *options, *fleet, "--json")
    assert answer.code == 2
    assert answer.json["type"] == "input"
    assert words in answer.json["error"]
    assert not out.exists()


def test_two_inputs_with_the_same_name_keep_apart(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    songs = [write_song(tmp_path / where / "song.wav", 1, 200) for where in ("a", "b")]
    command = ["submit", *songs, "--out", out, "--stems", "vocals", *fleet, "--json"]
    assert set(ends(stemctl(*command)).values()) == {"done"}, "the same bytes, twice"
    assert tree(out) == ["song (a)/vocals.wav", "song (b)/vocals.wav"]
    assert [track["end"] for track in stemctl(*command).json["tracks"]] == ["there", "there"]


def test_an_existing_output_is_replaced_only_when_asked(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    song = write_song(tmp_path / "song.wav")
    (out / "song").mkdir(parents=True)
    (out / "song" / "vocals.wav").write_text("mine")
    command = ["submit", song, "--out", out, *fleet]
    answer = stemctl(*command)
    assert answer.code == 2
    assert "holds files that are not stemctl's" in answer.out
    assert tree(out) == ["song/vocals.wav"]
    assert stemctl(*command, "--overwrite").code == 0
    assert tree(out) == ["song/instrumental.wav", "song/vocals.wav"]
    other = stemctl(*command, "--stems", "drums", "--json")
    assert other.code == 2
    assert "vocals, instrumental (center, wav 32f bit)" in other.json["tracks"][0]["error"]
    assert stemctl(*command, "--stems", "drums", "--overwrite").code == 0
    assert tree(out) == ["song/drums.wav"]


def test_a_dead_endpoint_is_set_aside_and_the_rest_goes_on(
    tmp_path: Path, out: Path, workers: list[RunningWorker], dead_url: str
) -> None:
    song = write_song(tmp_path / "song.wav")
    both = endpoints(dead_url, workers[0].url)
    answer = stemctl("submit", song, "--out", out, *both, "--json")
    assert answer.code == 0
    assert list(answer.json["set_aside"]) == [dead_url.removeprefix("http://")]
    assert "set aside" in answer.err


def test_without_a_live_worker_nothing_is_done(tmp_path: Path, out: Path, dead_url: str) -> None:
    song = write_song(tmp_path / "song.wav")
    answer = stemctl("submit", song, "--out", out, *endpoints(dead_url))
    assert answer.code == 2
    assert "does not answer" in answer.err
    assert "stemctl doctor" in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("token", ["not-the-token", None])
def test_a_wrong_token_is_told_with_what_to_do(
    tmp_path: Path, out: Path, fleet: list[str], token: str | None
) -> None:
    song = write_song(tmp_path / "song.wav")
    answer = stemctl("submit", song, "--out", out, *fleet, token=token)
    assert answer.code == 2
    assert "token is refused" in answer.err
    assert "STEMCTL_TOKEN" in answer.err


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A server of the files in ``tmp_path/web``."""
    (tmp_path / "web").mkdir()
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web")
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def test_a_url_is_fetched_by_the_worker(
    tmp_path: Path, out: Path, fleet: list[str], web: str
) -> None:
    write_song(tmp_path / "web" / "my song.wav")
    urls = [f"{web}/my%20song.wav", f"{web}/missing.wav"]
    answer = stemctl("submit", *urls, "--out", out, *fleet, "--json")
    assert ends(answer) == {"my song.wav": "done", "missing.wav": "failed"}
    assert answer.code == 1
    assert tree(out) == ["my song/instrumental.wav", "my song/vocals.wav"]


def test_dead_urls_are_no_worker_s_fault(
    tmp_path: Path, out: Path, fleet: list[str], web: str
) -> None:
    song = write_song(tmp_path / "song.wav")
    dead = [f"{web}/missing-{number}.wav" for number in range(7)]
    answer = stemctl("submit", *dead, song, "--out", out, *fleet, "--json")
    assert answer.json["set_aside"] == {}
    assert ends(answer).pop("song.wav") == "done"
    assert [track["end"] for track in answer.json["tracks"]].count("failed") == 7


def test_no_input_is_written_over(tmp_path: Path, fleet: list[str]) -> None:
    song = write_song(tmp_path / "vocals.wav")
    before = song.read_bytes()
    pattern = ["--out", tmp_path, "--output", "{stem}.{ext}", "--overwrite"]
    answer = stemctl("submit", song, *pattern, *fleet, "--json")
    assert (answer.code, ends(answer)) == (2, {"vocals.wav": "failed"})
    assert "is an input itself" in answer.json["tracks"][0]["error"]
    assert song.read_bytes() == before


def test_names_that_are_no_text_go_through(tmp_path: Path, fleet: list[str]) -> None:
    song = write_song(tmp_path / os.fsdecode(b"gr\xf6\xdfe.wav"))
    out = tmp_path / os.fsdecode(b"\xff")
    answer = stemctl("submit", song, "--out", out, "--events", tmp_path / "log", *fleet, "--json")
    assert answer.code == 0, answer.err
    assert len(tree(out)) == 2
    assert "\\udcff" in answer.out
    assert stemctl("report", "--out", out).code == 0


def test_a_file_that_is_not_there_is_another_than_the_track_of_its_name(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    song = write_song(tmp_path / "one.wav")
    answer = stemctl("submit", song, "one", "--out", out, *fleet, cwd=tmp_path)
    assert answer.code == 1
    [run] = stemctl("runs", "--out", out, "--json").json["runs"]
    assert (run["done"], run["failed"]) == (1, 1)
    assert stemctl("report", str(10**20), "--out", out).code == 2


@pytest.mark.parametrize("url", ["http://[x", "http://127.0.0.1:99999", "http://me:hush@host"])
def test_an_endpoint_that_cannot_be_is_told_without_its_secrets(url: str) -> None:
    for command in (["doctor"], ["status"]):
        answer = stemctl(*command, *endpoints(url))
        assert answer.code
        assert "--endpoint" in answer.out + answer.err
        assert "hush" not in answer.out + answer.err


def test_stems_in_the_output_folder_are_no_inputs(tmp_path: Path, fleet: list[str]) -> None:
    write_song(tmp_path / "song.wav")
    assert stemctl("submit", ".", *fleet, cwd=tmp_path).code == 0
    assert tree(tmp_path / "stems") == ["song/instrumental.wav", "song/vocals.wav"]
    assert ends(stemctl("submit", ".", *fleet, "--json", cwd=tmp_path)) == {"song.wav": "there"}
    shutil.move(tmp_path / "stems", tmp_path / "kept")
    answer = stemctl("submit", ".", *fleet, "--json", cwd=tmp_path)
    assert ends(answer) == {"song.wav": "done"}


def test_a_part_in_mono_goes_where_the_pattern_says_and_again_costs_nothing(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    write_song(tmp_path / "album" / "song.wav", 2)
    command = ["submit", tmp_path / "album", "--out", out, "--stems", "vocals,drums", *fleet]
    command += ["--bit-depth", "16", "--mono", "--range", "0:00.5-1.5", "--clip", "rescale"]
    command += ["--no-strict", "--sidecar", "--output", "{stem}/{parent} - {track}.{ext}", "--json"]
    assert ends(stemctl(*command)) == {"song.wav": "done"}
    assert tree(out / "vocals") == ["album - song.wav"]
    assert tree(out / "separation") == ["album - song.json"]
    with wave.open(str(out / "drums" / "album - song.wav")) as file:
        assert (file.getnchannels(), file.getnframes()) == (1, RATE)
    assert ends(stemctl(*command)) == {"song.wav": "there"}
    other = stemctl(*command, "--clip", "clamp")
    assert other.code == 2
    assert (
        "holds vocals, drums (center, wav 16 bit, mono, clip rescale, not strict, 0.5-1.5"
        in (other.json["tracks"][0]["error"])
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clip", "clam"], "no clip handling clam: did you mean clamp?"),
        (["--range", "90-60"], "must be later"),
        (["--range", "1h"], "give two times"),
        (["--format", "stem.mp4", "--mono"], "leave out --mono"),
        (["--output", "{trak}"], "no field trak: did you mean track?"),
        (["--output", "x"], "/b.wav: x/vocals.wav"),
        (["--out", "ftp://host/stems"], "give a folder of this machine, or s3://bucket/prefix"),
    ],
)
def test_wishes_that_cannot_be_stop_a_run_before_anything_is_sent(
    tmp_path: Path, out: Path, fleet: list[str], options: list[str], words: str
) -> None:
    songs = [write_song(tmp_path / f"{name}.wav") for name in "ab"]
    answer = stemctl("submit", *songs, "--out", out, *options, *fleet, "--json")
    assert answer.code == 2
    assert words in answer.json["error"]
    assert not out.exists()


def test_a_list_on_standard_input_and_a_manifest_with_rows_of_their_own(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    for name in ("one.wav", "two\nlines.wav", "three.wav"):
        write_song(tmp_path / name)
    command = ["submit", "-0", "-", "--stems", "vocals", "--out", out, "--json", *fleet]
    listed = stemctl(*command, cwd=tmp_path, given="one.wav\0two\nlines.wav\0")
    assert ends(listed) == {"one.wav": "done", "two_lines.wav": "done"}
    (tmp_path / "list.csv").write_text(
        "input,stems,format,output\none.wav,,,\nthree.wav,drums,mp3,mp3/{track} {stem}.{ext}\n"
        "three.wav,,,\nnone.wav,,,\n"
    )
    command = ["submit", tmp_path / "list.csv", *command[3:]]
    answer = stemctl(*command)
    assert answer.code == 1
    assert [track["end"] for track in answer.json["tracks"]] == ["there", "done", "done", "failed"]
    assert "list.csv, line 5" in answer.json["tracks"][-1]["name"]
    assert "mp3/three drums.mp3" in tree(out)
    (tmp_path / "list.csv").write_text("input,stems,preset\none.wav,drum,\nthree.wav,,centre\n")
    answer = stemctl(*command)
    assert answer.code == 2
    for words in ("line 2: there is no stem", "line 3: there is no preset centre"):
        assert words in answer.json["error"]


def test_a_dry_run_tells_what_would_be_and_does_nothing(
    tmp_path: Path, out: Path, workers: list[RunningWorker], fleet: list[str]
) -> None:
    song = write_song(tmp_path / "in" / "song.wav")
    (tmp_path / "in" / "empty.wav").touch()
    before = jobs_of(workers)
    command = ["submit", tmp_path / "in", "http://nowhere.example/b.wav", "--out", out, *fleet]
    answer = stemctl(*command, "--dry-run", "--json")
    assert answer.code == 1
    assert [(t["end"], t.get("bytes")) for t in answer.json["tracks"]] == [
        ("to do", song.stat().st_size),
        ("to do", None),
        ("failed", None),
    ]
    assert answer.json["tracks"][0]["files"] == ["song/vocals.wav", "song/instrumental.wav"]
    assert len(answer.json["workers"]) == 2
    people = stemctl(*command, "--dry-run")
    assert "2 to do" in people.out
    assert "nothing was sent" in people.out
    assert "vocals, instrumental (center, wav 32f bit)" in people.out
    assert jobs_of(workers) == before
    assert not out.exists()
    assert stemctl("submit", song, "--out", out, *fleet).code == 0
    again = stemctl("submit", song, "--out", out, *fleet, "--dry-run")
    assert (again.code, again.out.splitlines()[-1].split(",")[1]) == (0, " 1 done before")
