"""Inputs in S3: listed here, fetched by the worker, with a URL that nobody keeps."""

from __future__ import annotations

import subprocess
import sys
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from pydantic import AnyHttpUrl
from stemctl.asked.filter import Filter
from stemctl.asked.track import Track
from stemctl.asked.wanted import Wanted
from stemctl.asked.wishes import Wishes
from stemctl.dispatch.crew import Errand, Member, Trip
from stemctl.dispatch.failures import JobFailedError
from stemctl.dispatch.trip import computed, job_request, post
from stemctl.errors import InputError
from stemctl.fleet.stack import find_fleet
from stemctl.inputs.find import find_inputs
from stemctl.places import objects
from stemctl.places.objects import sign
from stemctl.places.outputs import url_origin
from stemctl.telling.progress import Lines
from stemctl.worker.client import Worker
from stemserve.schema import Job, StemFormat

from tests.cli.buckets import SECRET, Store, why_not
from tests.cli.driving import TOKEN, ends, stemctl, tree, write_song
from tests.service.worker import RunningWorker


def test_a_url_is_signed_for_one_object_and_no_other(store: Store) -> None:
    parts = urlsplit(sign("s3://music/an album/Größe & 日本+1.wav"))
    host = Message()
    host["Host"] = parts.netloc
    target = f"{parts.path}?{parts.query}"
    assert why_not("GET", target, host) is None
    assert why_not("PUT", target, host) == "has a wrong signature"
    assert why_not("GET", target.replace("an%20album", "another"), host) == "has a wrong signature"
    assert SECRET not in target


def test_a_folder_in_a_bucket_gives_its_audio(store: Store) -> None:
    names = ["a.wav", "deep/b & c.flac", "deep/x.txt", "live/d.mp3", "Größe 日本.opus"]
    store.objects = {f"music/in/{name}": b"sound" for name in names}
    store.objects |= {"music/in/empty.wav": b"", "music/other/e.wav": b"sound"}
    only = Filter(exclude=("live",))
    found = find_inputs(["s3://music/in/"], Path("out"), Wishes(), only=only)
    assert [(song.place, song.url) for song in found.songs] == [
        ("Größe 日本", "s3://music/in/Größe 日本.opus"),
        ("a", "s3://music/in/a.wav"),
        ("deep/b & c", "s3://music/in/deep/b & c.flac"),
    ]
    assert [bad.name for bad in found.unusable] == ["s3://music/in/empty.wav"]
    assert not store.refused


def test_stems_in_a_bucket_are_no_songs(store: Store) -> None:
    made = {"made/a/vocals.wav": b"sound", "made/a/.stemctl.json": b"{}"}
    store.objects = {f"music/{name}": b"sound" for name in ("a.wav", "out/b/vocals.wav")}
    store.objects |= {f"music/{name}": content for name, content in made.items()}
    found = find_inputs(["s3://music/"], Path("s3://music/out"), Wishes())
    assert [song.url for song in found.songs] == ["s3://music/a.wav"]
    found = find_inputs(["s3://music/"], Path("s3://another/out"), Wishes())
    assert [song.place for song in found.songs] == ["a", "out/b/vocals"]


def test_what_hinders_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    [bad] = find_inputs(["s3://nobody/"], Path("out"), Wishes()).unusable
    assert "NoSuchKey" in bad.reason
    [bad] = find_inputs(["s3:///key"], Path("out"), Wishes()).unusable
    assert bad.reason == "give s3://bucket/key"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    objects._client.cache_clear()
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"):
        sign("s3://music/a.wav")


def test_without_boto3_it_is_told_what_to_install() -> None:
    program = (
        "import sys\nsys.modules['boto3'] = None\nfrom stemctl.places.objects import sign\n"
        "from stemctl.errors import InputError\n"
        "try: sign('s3://a/b')\nexcept InputError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'stemfleet[s3]'" in done.stdout


def test_the_worker_fetches_objects_and_nobody_keeps_the_signature(
    tmp_path: Path, out: Path, store: Store, fleet: list[str], workers: list[RunningWorker]
) -> None:
    for name in ("one", "two words"):
        song = write_song(tmp_path / f"{name}.wav")
        store.objects[f"music/album/{name}.wav"] = song.read_bytes()
    command: list[object] = ["submit", "s3://music/album/one.wav", "s3://music/album/two words.wav"]
    command += ["s3://music/album/none.wav", "--out", out, "--stems", "vocals"]
    command += fleet[:2]  # one worker: none races another
    first = stemctl(*command, "--json")
    assert ends(first) == {"one.wav": "done", "two words.wav": "done", "none.wav": "failed"}
    assert tree(out) == ["one/vocals.wav", "two words/vocals.wav"]
    assert sorted(store.given) == ["music/album/one.wav", "music/album/two words.wav"]
    again = stemctl(*command, "--json")
    assert ends(again) == {"one.wav": "there", "two words.wav": "there", "none.wav": "failed"}
    kept = [path.read_text() for path in out.rglob("*.json")]
    kept += [worker.log.read_text() for worker in workers]
    for text in (first.out, first.err, again.out, again.err, *kept):
        assert "X-Amz" not in text


def test_a_job_that_was_posted_with_another_signature_is_the_same_job(
    tmp_path: Path, store: Store, workers: list[RunningWorker]
) -> None:
    song, watcher = write_song(tmp_path / "late.wav"), Lines([], 1)
    url = "s3://music/late.wav"
    wanted = Wanted(preset="center", stems=("vocals",), format=StemFormat.WAV, bit_depth=None)
    track = Track("late.wav", "late", wanted, ("late/vocals.wav",), url=url)
    [endpoint, _] = find_fleet(None, "", [worker.url for worker in workers]).endpoints

    async def main() -> None:
        request = await job_request(track, url_origin(url))
        later = request.model_copy(update={"input_url": AnyHttpUrl(f"{request.input_url}&later=1")})
        async with Worker(endpoint, TOKEN) as worker:
            member = Member(worker, frozenset({"center"}))
            trip, job_id = Trip(Errand(track, 1.0), member), str(request.job_id)

            async def never(job: Job) -> bool:
                return False

            await post(trip, request)
            await post(trip, later)  # it waits, runs or has failed
            with pytest.raises(JobFailedError, match=r"403|404"):
                await computed(trip, job_id, watcher, never)
            store.objects["music/late.wav"] = song.read_bytes()
            await post(trip, later)
            with pytest.raises(JobFailedError, match="403"):  # it has asked by the later URL
                await computed(trip, job_id, watcher, never)
            await post(trip, request)
            assert await computed(trip, job_id, watcher, never)
            await worker.delete(job_id)

    anyio.run(main)
