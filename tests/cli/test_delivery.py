"""Stems into a bucket: put there by the workers, and never here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from platformdirs import user_data_path
from stemctl.doctor import look_at_out
from stemctl.errors import InputError
from stemctl.places.bucket import bucket_of, kept_in, shown

from tests.cli.buckets import Store
from tests.cli.driving import ends, stemctl, write_song
from tests.cli.running import submitting
from tests.service.worker import RunningWorker, eventually

OUT = "s3://music/lib/stems"


@pytest.fixture
def store(store: Store) -> Store:
    """The store, with a bucket that is there."""
    store.objects["music/readme.txt"] = b"songs"
    return store


def under(store: Store, prefix: str = "music/lib/stems/") -> list[str]:
    """The keys of what lies there."""
    return sorted(name.removeprefix(prefix) for name in store.objects if name.startswith(prefix))


def fetched(worker: RunningWorker) -> list[str]:
    """What a worker counts of results and segments that were fetched from it."""
    with worker.client() as client:
        lines = client.get("/metrics").text.splitlines()
    routes = re.compile(r'"/(result/\{job_id\}|job/\{job_id\}/segments/\{index\}/\{stem\})"')
    return [line for line in lines if "GET" in line and routes.search(line)]


def test_the_workers_put_the_stems_and_none_of_it_comes_here(
    tmp_path: Path, out: Path, store: Store, fleet: list[str], workers: list[RunningWorker]
) -> None:
    here = write_song(tmp_path / "one.wav")
    store.objects["music/in/two words.wav"] = write_song(tmp_path / "b.wav", 2.0).read_bytes()
    songs = [here, "s3://music/in/two words.wav"]
    wishes = ["--stems", "vocals,drums", "--sidecar", *fleet, "--json"]
    stemctl("submit", *songs, "--out", out, *wishes)
    before = [fetched(worker) for worker in workers]
    assert any(before)
    command = ["submit", *songs, "--out", OUT, *wishes]

    first = stemctl(*command)
    assert ends(first) == {"one.wav": "done", "two words.wav": "done"}
    assert first.json["out"] == OUT
    assert [track["got"] for track in first.json["tracks"]] == [0, 0]
    assert [fetched(worker) for worker in workers] == before
    names = [".stemctl.json", "drums.wav", "separation.json", "vocals.wav"]
    assert under(store) == [f"{track}/{name}" for track in ("one", "two words") for name in names]
    for place in under(store):
        written = f"music/lib/stems/{place}"
        by_worker = "httpx" in store.callers[written]
        assert by_worker == (not place.endswith(".stemctl.json"))
        if place.endswith(".wav"):
            assert store.objects[written] == (out / place).read_bytes()
    assert store.put[-1].endswith(".stemctl.json")

    store.put.clear()
    assert ends(stemctl(*command)) == {"one.wav": "there", "two words.wav": "there"}
    assert store.put == []
    del store.objects["music/lib/stems/two words/drums.wav"]
    assert ends(stemctl(*command)) == {"one.wav": "there", "two words.wav": "done"}
    assert under(store) == [f"{track}/{name}" for track in ("one", "two words") for name in names]
    assert all("/two words/" in name for name in store.put)

    runs = stemctl("runs", "--out", OUT, "--json").json["runs"]
    assert [run["done"] for run in runs] == [1, 0, 2]
    kept = [path for path in user_data_path("stemfleet").rglob("*") if path.is_file()]
    logs = [worker.log for worker in workers]
    assert kept
    for path in (*kept, *logs):
        assert b"X-Amz" not in path.read_bytes()
    records = [store.objects[name].decode() for name in store.objects if name.endswith(".json")]
    for text in (first.out, first.err, *records):
        assert "X-Amz" not in text
    assert not store.refused


def test_what_others_have_put_there_is_left_alone(
    tmp_path: Path, store: Store, fleet: list[str]
) -> None:
    song = write_song(tmp_path / "album" / "one.wav")
    store.objects["music/lib/stems/one/vocals.wav"] = b"theirs"
    command = ["submit", song, "--stems", "vocals", "--out", OUT, *fleet, "--json"]
    refused = stemctl(*command)
    assert refused.code == 2
    assert f"{OUT}/one holds files that are not stemctl's" in refused.json["tracks"][0]["error"]
    assert store.objects["music/lib/stems/one/vocals.wav"] == b"theirs"
    assert ends(stemctl(*command, "--overwrite")) == {"one.wav": "done"}
    assert store.objects["music/lib/stems/one/vocals.wav"] != b"theirs"

    other = [*command[:3], "drums", *command[4:]]
    told = stemctl(*other)
    assert "holds vocals (center" in told.json["tracks"][0]["error"]
    assert ends(stemctl(*other, "--overwrite")) == {"one.wav": "done"}
    assert under(store) == ["one/.stemctl.json", "one/drums.wav"]

    spread = [*command, "--output", "{stem}/{parent} - {track}.{ext}"]
    store.objects["music/lib/stems/vocals/album - one.wav"] = b"theirs"
    assert stemctl(*spread).code == 2
    assert ends(stemctl(*spread, "--overwrite")) == {"one.wav": "done"}
    assert store.objects["music/lib/stems/vocals/album - one.wav"] != b"theirs"
    assert ends(stemctl(*spread)) == {"one.wav": "there"}


def test_a_cut_in_the_middle_is_gone_on_from(
    tmp_path: Path, store: Store, fleet: list[str]
) -> None:
    song = write_song(tmp_path / "one.wav")
    command = ["submit", song, "--stems", "vocals,drums", "--out", OUT, *fleet, "--json"]
    store.closed.add("/drums.wav")
    cut = stemctl(*command)
    assert ends(cut) == {"one.wav": "failed"}
    assert f"could not write {OUT}/one/drums.wav" in cut.json["tracks"][0]["error"]
    assert "answers 403" in cut.json["tracks"][0]["error"]
    assert under(store) == ["one/.stemctl.json", "one/vocals.wav"]
    store.closed.clear()
    assert ends(stemctl(*command)) == {"one.wav": "done"}
    assert ends(stemctl(*command)) == {"one.wav": "there"}


def test_a_run_killed_in_mid_delivery_is_gone_on_from(
    tmp_path: Path, out: Path, store: Store, fleet: list[str]
) -> None:
    song = write_song(tmp_path / "one.wav")
    wishes = ["--stems", "vocals,drums", *fleet, "--json"]
    command = ["submit", song, "--out", OUT, *wishes]
    store.held.add("/drums.wav")
    with submitting(command) as process:
        eventually(lambda: store.waiting)
        process.kill()
        process.wait()
    assert json.loads(store.objects["music/lib/stems/one/.stemctl.json"])["begun"]
    assert "one/drums.wav" not in under(store)
    store.held.clear()
    store.let_go.set()
    assert ends(stemctl(*command)) == {"one.wav": "done"}
    assert under(store) == ["one/.stemctl.json", "one/drums.wav", "one/vocals.wav"]
    stemctl("submit", song, "--out", out, *wishes)
    for place in ("one/drums.wav", "one/vocals.wav"):
        assert store.objects[f"music/lib/stems/{place}"] == (out / place).read_bytes()
    store.put.clear()
    assert ends(stemctl(*command)) == {"one.wav": "there"}
    assert store.put == []


def test_what_a_store_loses_is_seen(tmp_path: Path, store: Store, fleet: list[str]) -> None:
    song = write_song(tmp_path / "one.wav")
    store.losing.add("music/lib/stems/one/vocals.wav")
    command = ["submit", song, "--stems", "vocals", "--out", OUT, *fleet, "--json"]
    lost = stemctl(*command)
    assert ends(lost) == {"one.wav": "failed"}
    assert "where there is" in lost.json["tracks"][0]["error"]
    record = json.loads(store.objects["music/lib/stems/one/.stemctl.json"])
    assert record["begun"]
    store.losing.clear()
    assert ends(stemctl(*command)) == {"one.wav": "done"}


def test_the_parts_of_a_long_track_do_not_come_here_and_do_not_stay_there(
    tmp_path: Path, store: Store, fleet: list[str], workers: list[RunningWorker]
) -> None:
    song = write_song(tmp_path / "long.wav", 302.0)
    before = [fetched(worker) for worker in workers]
    done = stemctl(
        *("submit", song, "--stems", "vocals", "--mono", "--bit-depth", "16", "--out", OUT),
        *(*fleet, "--json"),
    )
    assert ends(done) == {"long.wav": "done"}
    assert [track["got"] for track in done.json["tracks"]] == [0]
    assert [fetched(worker) for worker in workers] == before
    assert any("/.stemctl/parts/" in name for name in store.put)
    assert under(store) == ["long/.stemctl.json", "long/vocals.wav"]


def test_a_bucket_that_cannot_be_used_stops_a_run_before_anything_is_sent(
    tmp_path: Path, store: Store, fleet: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    song = write_song(tmp_path / "one.wav")
    command = ["submit", song, "--json", *fleet, "--out"]
    nobodys = stemctl(*command, "s3://nobodys/stems")
    assert (nobodys.code, "NoSuchKey" in nobodys.json["error"]) == (2, True)
    dry = stemctl(*command, OUT, "--dry-run")
    assert (dry.json["out"], dry.json["tracks"][0]["end"]) == (OUT, "to do")
    store.closed.add(".stemctl.json")
    closed = stemctl(*command, OUT)
    assert closed.code == 2
    assert "AccessDenied" in closed.json["error"]
    assert under(store) == []
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "there are no keys" in stemctl(*command, OUT).json["error"]


@pytest.mark.parametrize(
    ("out", "name", "key"),
    [
        ("s3://music/lib/stems/", "s3://music/lib/stems", "lib/stems/a/b.wav"),
        ("s3://music", "s3://music", "a/b.wav"),
        ("s3://music/../x", "s3://music/../x", "../x/a/b.wav"),
    ],
)
def test_what_a_bucket_is_called(out: str, name: str, key: str) -> None:
    bucket = bucket_of(Path(out))
    assert bucket is not None
    assert (str(bucket), bucket.key("a/b.wav"), shown(Path(out), "a")) == (name, key, f"{name}/a")
    assert kept_in(Path(out)).parent == user_data_path("stemfleet") / "buckets"


def test_the_doctor_looks_into_the_bucket(store: Store) -> None:
    assert look_at_out(Path(OUT), 0).ok
    nobodys = look_at_out(Path("s3://nobodys/stems"), 0)
    assert (nobodys.ok, "NoSuchKey" in nobodys.detail) == (False, True)


def test_what_is_no_place_for_stems() -> None:
    assert bucket_of(Path("stems")) is None
    for text in ("s3://", "https://host/stems"):
        with pytest.raises(InputError, match="give a folder of this machine"):
            bucket_of(Path(text))
