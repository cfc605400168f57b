"""What one worker has finished of a track another takes over; many share one; nothing differs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from stemserve.audio.wav import WavSamples, header
from stemserve.schema import SIDECAR, STEM_FILE_STEMS, BitDepth, Segments
from stemserve.separation.presets import PRESETS

from tests.service.networks import make_weights
from tests.service.separating import separation_process, task
from tests.service.sounds import read_audio, tones, write_audio
from tests.service.test_delivery import Taker, taking
from tests.service.test_pieces import done
from tests.service.worker import (
    RunningWorker,
    ended,
    eventually,
    post,
    running_worker,
    until,
    upload,
)

RATE = 44_100
CUTS = "4,9.5,13"
HALTING = (sys.executable, "-m", "tests.service.halting")


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Sixteen seconds of stereo noise, some of it beyond full scale once it is taken apart."""
    sound = np.random.default_rng(5).normal(0, 0.3, (16 * RATE + 77, 2)).astype(np.float32)
    path = tmp_path_factory.mktemp("song") / "song.flac"
    return write_audio(path, sound, RATE, "flac").read_bytes()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker that separates."""
    data_dir = tmp_path_factory.mktemp("real") / "data"
    with running_worker(data_dir, "the-token", fetch_private=True) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def other(real: RunningWorker) -> Iterator[httpx.Client]:
    """A client of it."""
    with real.client() as ours:
        yield ours


@pytest.fixture(scope="module")
def halting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker that never gets beyond the second segment of a job."""
    data_dir = tmp_path_factory.mktemp("halting") / "data"
    with running_worker(
        data_dir, "the-token", separation_command=HALTING, fetch_private=True
    ) as running:
        running.wait_ready()
        yield running


def done_by(client: httpx.Client, job_id: str) -> dict[str, bytes]:
    """The sound files of a job, once it is over."""
    job = ended(client, job_id)
    assert job["status"] == "completed", job["error"]
    return {
        result["name"]: client.get(f"/result/{job_id}", params={"file": result["name"]}).content
        for result in job["results"]
        if result["name"] != SIDECAR
    }


def finished(client: httpx.Client, job_id: str, count: int) -> Segments:
    """The segments of a job, once so many are finished."""

    def look() -> int:
        answer = client.get(f"/job/{job_id}/segments")
        if answer.status_code == 409:
            assert answer.json()["type"] == "not-started"
            return 0
        assert answer.status_code == 200, answer.text
        return len(answer.json()["segments"])

    eventually(look, lambda seen: seen >= count)
    return Segments.model_validate(client.get(f"/job/{job_id}/segments").json())


def carried(
    here: httpx.Client, job_id: str, segments: Segments, there: httpx.Client
) -> list[dict[str, Any]]:
    """The finished segments of a job brought from one worker to another, as parts."""
    parts = []
    for segment in segments.segments:
        for stem in segments.stems:
            answer = here.get(f"/job/{job_id}/segments/{segment.index}/{stem}")
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "audio/wav"
            part = segment.model_dump(exclude={"index"})
            parts.append(part | {"stem": stem, "input_sha256": upload(there, answer.content)})
    return parts


def over(client: httpx.Client, path: str) -> dict[str, Any]:
    """A delivery or a fetch, once it is over."""

    def look() -> dict[str, Any]:
        state: dict[str, Any] = client.get(path).json()
        return state

    return eventually(look, lambda state: state["status"] not in ("sending", "fetching"))


def carried_by_a_store(
    here: httpx.Client, job_id: str, segments: Segments, there: httpx.Client, store: Taker
) -> list[dict[str, Any]]:
    """The same, without any of it coming here."""
    parts = []
    for segment in segments.segments:
        for stem in segments.stems:
            path = f"/job/{job_id}/segments/{segment.index}/{stem}/deliver"
            url = f"{store.url}/{job_id}/{segment.index}/{stem}"
            assert here.post(path, json={"url": url}).status_code == 202
            sent = over(here, path)
            assert sent["status"] == "delivered", sent
            assert sent["file"] == f"{segment.index}/{stem}.wav"
            fetch = f"/inputs/{sent['sha256']}/fetch"
            assert there.post(fetch, json={"input_url": url}).status_code == 202
            came = over(there, fetch)
            assert (came["status"], came["size"]) == ("fetched", sent["size"])
            part = segment.model_dump(exclude={"index"})
            parts.append(part | {"stem": stem, "input_sha256": sent["sha256"]})
    return parts


def sidecar(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """How a job's results were made."""
    said: dict[str, Any] = client.get(f"/result/{job_id}", params={"file": SIDECAR}).json()
    return said


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"format": "wav", "bit_depth": "24", "mono": True, "clip": "clamp"},
        {"format": "wav", "bit_depth": "16", "clip": "rescale"},
        {"format": "flac", "range": {"start_seconds": 1.5, "end_seconds": 15.25}},
        {"format": "mp3", "stems": ["drums", "no_drums"]},
        {"format": "stem.mp4"},
    ],
    ids=lambda wishes: "-".join(map(str, wishes.values())) or "plain",
)
def test_another_worker_goes_on_where_one_stopped(
    song: bytes, halting: RunningWorker, other: httpx.Client, wishes: dict[str, object]
) -> None:
    undisturbed = done_by(other, post(other, song, **wishes))
    asked = wishes | {"interval_cut": CUTS}
    with halting.client() as client:
        job_id = post(client, song, **asked)
        segments = finished(client, job_id, 2)
        start = segments.start_frame
        assert [(s.index, s.start_frame, s.end_frame) for s in segments.segments] == [
            (0, start, 4 * RATE),
            (1, 4 * RATE, int(9.5 * RATE)),
        ]
        stems = {*wishes.get("stems", ("vocals", "instrumental"))}  # type: ignore[misc]
        if wishes.get("format") == "stem.mp4":
            stems = {"mix", *STEM_FILE_STEMS}
        assert set(segments.stems) == stems
        with taking() as store:
            parts = carried_by_a_store(client, job_id, segments, other, store)
        assert carried(client, job_id, segments, other) == parts
        assert until(client, job_id, "running")  # it was all fetched in mid-job
        client.post(f"/job/{job_id}/cancel")
        assert client.get(f"/job/{job_id}/segments").json()["type"] == "segments-gone"
    again = post(other, song, **asked, parts=parts)
    assert done_by(other, again) == undisturbed
    assert sidecar(other, again)["taken"] == [[start, 4 * RATE], [4 * RATE, int(9.5 * RATE)]]
    log = other.get(f"/job/{again}/logs").json()["logs"]
    assert log.count("from what was finished elsewhere") == 2


def test_the_mix_can_be_had_beside_stems(song: bytes, other: httpx.Client, tmp_path: Path) -> None:
    files = done_by(other, post(other, song, stems=["mix", "vocals", "no_vocals"], format="wav"))
    assert set(files) == {"vocals.wav", "no_vocals.wav", "mix.wav"}
    sounds = {}
    for name, content in {**files, "song.flac": song}.items():
        (tmp_path / name).write_bytes(content)
        sounds[name], _ = read_audio(tmp_path / name)
    np.testing.assert_array_equal(sounds["mix.wav"], sounds["song.flac"])
    parts = sounds["vocals.wav"] + sounds["no_vocals.wav"]
    np.testing.assert_allclose(parts, sounds["mix.wav"], atol=1e-6)
    alone = other.post("/job", json={"input_sha256": "0" * 64, "stems": ["mix"]})
    assert (alone.status_code, "name one" in alone.text) == (422, True)


def test_a_worker_that_was_killed_in_mid_job_leaves_segments_to_fetch(
    song: bytes, tmp_path: Path, other: httpx.Client
) -> None:
    data_dir = tmp_path / "data"
    asked = {"format": "flac", "interval_cut": CUTS, "stems": ["bass"]}
    with running_worker(data_dir, separation_command=HALTING) as first, first.client() as client:
        first.wait_ready()
        job_id = post(client, song, **asked)
        before = finished(client, job_id, 2)
        parts = carried(client, job_id, before, other)
        first.kill()
    again = post(other, song, **asked, parts=parts)
    whole = done_by(other, again)
    # The worker itself knows of them after its restart, before it has come to the job again.
    broken = (sys.executable, "-c", "raise SystemExit(1)")
    with running_worker(data_dir, separation_command=broken) as second, second.client() as client:
        eventually(lambda: second.log.read_text().count("worker"), lambda said: said >= 2)
        assert finished(client, job_id, 2) == before
        assert carried(client, job_id, before, other) == parts
    with running_worker(data_dir) as third, third.client() as client:
        assert done_by(client, job_id) == whole


@pytest.mark.parametrize("wishes", [{"format": "wav", "bit_depth": "16"}, {"format": "m4a"}])
def test_two_workers_share_a_track_by_ranges(
    song: bytes, real: RunningWorker, tmp_path: Path, wishes: dict[str, object]
) -> None:
    middle = 7.123
    halves = [{"end_seconds": middle}, {"start_seconds": middle}]
    with (
        running_worker(tmp_path / "data") as second,
        real.client() as first,
        second.client() as last,
    ):
        second.wait_ready()
        parts = []
        for client, half in zip((first, last), halves, strict=True):
            # Lossy results are of no use for joining; the samples are, as wav holds them.
            job_id = post(client, song, range=half, format="wav", bit_depth=wishes.get("bit_depth"))
            ended(client, job_id)
            parts += carried(client, job_id, finished(client, job_id, 1), first)
        assert len({part["start_frame"] for part in parts}) == 2
        joined = post(first, song, parts=parts, **wishes)
        assert done_by(first, joined) == done_by(first, post(first, song, **wishes))


def test_parts_may_lie_anywhere_also_for_networks(tmp_path: Path) -> None:
    make_weights(tmp_path, PRESETS["htdemucs"])
    song = write_audio(tmp_path / "song.wav", tones(11 * RATE + 5), RATE, "pcm_s16le")
    with separation_process(
        deadline_s=280, STEMSERVE_WEIGHTS=str(tmp_path), OMP_NUM_THREADS="1"
    ) as process:
        wishes: dict[str, Any] = {"preset": "htdemucs", "stems": ["bass"], "bit_depth": "16"}
        whole = done(process, task(song, tmp_path / "whole", **wishes))
        samples = WavSamples.of(tmp_path / "whole" / "bass.wav")
        for number, ranges in enumerate(
            [[(0, 70_001)], [(50_000, 90_000), (90_000, 300_300)], [(1, samples.frames)]]
        ):
            parts = []
            for start, end in ranges:
                path = tmp_path / f"{start}-{end}.wav"
                head = header(BitDepth.B16, RATE, 2, end - start)
                path.write_bytes(head + samples.read(start, end - start))
                parts.append({"start": start, "end": end, "files": {"bass": str(path)}})
            asked = task(song, tmp_path / f"{number}", parts=parts, cut_points=[2, 5], **wishes)
            assert done(process, asked) == whole


def faults() -> dict[str, list[dict[str, object]]]:
    """Parts that have no meaning, by what is wrong with them."""

    def part(start: int, end: int, stem: str = "bass") -> dict[str, object]:
        return {"start_frame": start, "end_frame": end, "stem": stem}

    return {
        "overlap": [part(0, 5), part(4, 8)],
        "fall": [part(5, 8), part(0, 5)],
        "twice": [part(0, 5), part(0, 5)],
        "empty": [part(5, 5)],
        "a stem too few": [part(0, 5, "drums")],
        "a stem too many": [part(0, 5), part(0, 5, "drums")],
    }


@pytest.mark.parametrize("fault", faults())
def test_parts_without_meaning_are_refused(other: httpx.Client, song: bytes, fault: str) -> None:
    sha256 = upload(other, song)
    parts = [part | {"input_sha256": sha256} for part in faults()[fault]]
    request = {"input_sha256": sha256, "stems": ["bass"], "parts": parts}
    answer = other.post("/job", json=request)
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == "invalid-request"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no sound at all", "it is no WAV file"),
        (header(BitDepth.F32, RATE, 2, 9) + bytes(72), "this has 9 at 44100 Hz"),
        (header(BitDepth.B16, RATE, 2, 10) + bytes(40), "2 channel(s), 16"),
        (header(BitDepth.F32, 48_000, 2, 10) + bytes(80), "48000 Hz"),
        (header(BitDepth.F32, RATE, 2, 10)[:30], "it holds no samples"),
    ],
)
def test_parts_that_are_something_else_fail_the_job(
    other: httpx.Client, song: bytes, content: bytes, says: str
) -> None:
    sha256 = upload(other, content)
    part = {"start_frame": 0, "end_frame": 10, "stem": "bass", "input_sha256": sha256}
    job = ended(other, post(other, song, stems=["bass"], parts=[part]))
    assert (job["status"], job["error_type"]) == ("failed", "bad-part")
    assert says in job["error"]


def test_a_part_that_was_not_sent_is_asked_for(other: httpx.Client, song: bytes) -> None:
    part = {"start_frame": 0, "end_frame": 10, "stem": "bass", "input_sha256": "0" * 64}
    request = {"input_sha256": upload(other, song), "stems": ["bass"], "parts": [part]}
    answer = other.post("/job", json=request)
    assert (answer.status_code, answer.json()["type"]) == (404, "no-such-input")


def test_segments_of_a_completed_job(other: httpx.Client, song: bytes) -> None:
    wav = post(other, song, stems=["bass"], format="wav", interval_cut=CUTS)
    ended(other, wav)
    segments = finished(other, wav, 4)
    assert segments.segments[-1].end_frame == segments.end_frame == 16 * RATE + 77
    answer = other.get(f"/job/{wav}/segments/3/bass")
    whole = other.get(f"/result/{wav}", params={"file": "bass.wav"}).content
    assert whole.endswith(answer.content[len(header(BitDepth.F32, RATE, 2, 0)) :])
    again = post(other, song, stems=["bass"], format="wav", interval_cut=CUTS, job_id="again")
    assert ended(other, again)["status"] == "completed"
    assert finished(other, again, 4) == segments
    assert other.get(f"/job/{again}/segments/3/bass").content == answer.content
    unknown = other.get(f"/job/{wav}/segments/4/bass")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "no-such-segment")
    unknown = other.get(f"/job/{wav}/segments/0/drums")
    assert (unknown.status_code, unknown.json()["choices"]) == (404, ["bass"])
    flac = post(other, song, stems=["bass"], format="flac", interval_cut=CUTS)
    ended(other, flac)
    gone = eventually(
        lambda: other.get(f"/job/{flac}/segments"), lambda answer: answer.status_code == 410
    )
    assert gone.json()["type"] == "segments-gone"
    assert other.get("/job/unknown/segments").status_code == 404
