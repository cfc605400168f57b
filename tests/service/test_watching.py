"""What an operator can know of a worker: numbers, its log, what it is made of; no secret in any."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from stemserve.logs import without_secrets
from stemserve.schema import Status
from stemserve.separation.device import device_name, gpu
from stemserve.separation.presets import PRESETS

from tests.service.networks import make_weights
from tests.service.worker import (
    STAND_IN,
    RunningWorker,
    ended,
    eventually,
    post,
    running_worker,
    until,
)

TOKEN = "sesame-0123456789"
SIGNATURE = "X-Signature=deadbeef"


def numbers(client: httpx.Client) -> dict[tuple[str, str], float]:
    """All that /metrics tells, by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def json_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker that logs JSON, and has a lease."""
    data_dir = tmp_path_factory.mktemp("worker") / "data"
    with running_worker(
        data_dir, TOKEN, separation_command=STAND_IN, log="json", lease_hours=2
    ) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def watched(json_worker: RunningWorker) -> Iterator[httpx.Client]:
    """A client of it."""
    with json_worker.client() as ours:
        yield ours


def lines(worker: RunningWorker) -> list[dict[str, Any]]:
    """The worker's log."""
    return [json.loads(line) for line in worker.log.read_text().splitlines()]


def test_numbers_of_jobs_by_how_they_ended(watched: httpx.Client) -> None:
    before = numbers(watched)
    ended(watched, post(watched, b"copy to be counted"))
    ended(watched, post(watched, b"fail not-audio"))
    ended(watched, post(watched, b"fail some-word-of-its-own"))
    hanging = post(watched, b"hold to be cancelled")
    until(watched, hanging, "running")
    eventually(lambda: numbers(watched)["stemserve_jobs", "status=running"], lambda n: n == 1)
    watched.post(f"/job/{hanging}/cancel")
    after = numbers(watched)

    def more(name: str, labels: str) -> float:
        return after[name, labels] - before.get((name, labels), 0)

    assert more("stemserve_jobs_ended_total", "outcome=completed") == 1
    assert more("stemserve_jobs_ended_total", "outcome=failed") == 2
    assert more("stemserve_jobs_ended_total", "outcome=cancelled") == 1
    assert more("stemserve_job_errors_total", "type=not-audio") == 1
    assert more("stemserve_job_errors_total", "type=other") == 1
    assert more("stemserve_jobs", "status=completed") == 1
    assert after["stemserve_jobs", "status=pending"] == 0
    assert after["stemserve_stage_seconds_total", "stage=inference"] > 0
    assert more("stemserve_sound_seconds_total", "") == 12.5
    assert after["stemserve_realtime_ratio", ""] > 0
    assert 0 < after["stemserve_lease_seconds", ""] <= 7200
    assert after["stemserve_idle_seconds", ""] >= 0
    assert after["stemserve_ready", ""] in (0, 1)


def test_numbers_of_calls_have_few_labels(watched: httpx.Client) -> None:
    for path in ("/job/one", "/job/two", "/job/three?secret=4", "/nowhere/5", "/nowhere/6"):
        watched.get(path)
    watched.request("BREW", "/health")
    httpx.get(f"{watched.base_url}/status")
    found = {
        labels: value
        for (name, labels), value in numbers(watched).items()
        if name == "stemserve_http_requests_total"
    }
    assert found["method=GET,route=/job/{job_id},status=404"] == 3
    assert found["method=GET,route=other,status=404"] == 2
    assert found["method=GET,route=other,status=401"] == 1
    assert any(labels.startswith("method=other,") for labels in found)
    assert not any(word in labels for labels in found for word in ("one", "nowhere", "secret"))


def test_numbers_are_not_for_strangers(json_worker: RunningWorker) -> None:
    assert httpx.get(f"{json_worker.url}/metrics").status_code == 401


def test_a_line_about_a_job_has_its_id(json_worker: RunningWorker, watched: httpx.Client) -> None:
    job_id = post(watched, b"copy to be logged", job_id="logged")
    ended(watched, job_id)
    said = eventually(
        lambda: [line for line in lines(json_worker) if line.get("job_id") == job_id],
        lambda found: any("completed" in line["message"] for line in found),
    )
    assert any("separating" in line["message"] for line in said)
    watched.post(f"/job/{job_id}/cancel")
    refused = eventually(
        lambda: lines(json_worker)[-1],
        lambda line: line["message"] == "POST /job/{job_id}/cancel: 409",
    )
    assert refused["job_id"] == job_id
    assert {"time", "level", "logger", "seconds"} <= refused.keys()


def test_no_secret_is_logged(json_worker: RunningWorker, watched: httpx.Client) -> None:
    url = f"http://user:{TOKEN}@127.0.0.1:9/song.flac?{SIGNATURE}"
    answer = watched.post("/job", json={"input_url": url, "job_id": "signed"})
    assert answer.status_code == 200
    job = ended(watched, "signed")
    assert job["status"] == "failed"
    watched.get(f"/nowhere?token={TOKEN}")
    watched.get("/job/unknown", headers={"Authorization": f"Bearer {TOKEN}x"})
    log = watched.get("/job/signed/logs").json()["logs"]
    for text in (json_worker.log.read_text(), log):
        assert text
        assert TOKEN not in text
        assert SIGNATURE not in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_blotted_out_wherever_they_are(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from stemserve.logs import about, configure
    from stemserve.settings import LogFormat

    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure(LogFormat(form), [TOKEN])
        with about("the-job"):
            try:
                raise ValueError(f"cannot fetch https://a.b/c?{SIGNATURE} with {TOKEN}")
            except ValueError:
                logging.getLogger("stemserve.x").exception("it failed for %s", TOKEN)
        said = capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    assert TOKEN not in said
    assert SIGNATURE not in said
    assert "the-job" in said
    assert "https://a.b/c?…" in said
    if form == "json":
        assert json.loads(said)["exception"].startswith("Traceback")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://h/p?x=1&y=2 failed", "https://h/p?… failed"),
        ("S3://b/k#f", "S3://b/k?…"),
        ("'http://u:p@h:1/p' is", "'http://h:1/p' is"),
        ("why? because a/b?c", "why? because a/b?c"),
    ],
)
def test_urls_in_texts(text: str, left: str) -> None:
    assert without_secrets(text) == left


def test_a_worker_tells_what_it_is_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_weights(tmp_path, PRESETS["htdemucs"])
    monkeypatch.setenv("STEMSERVE_WEIGHTS", str(tmp_path))
    with running_worker(tmp_path / "data", preset="htdemucs") as worker, worker.client() as client:
        worker.wait_ready()
        said = Status.model_validate(client.get("/status").json())
    assert {"stemfleet", "torch", "av", "ffmpeg", "python"} <= said.versions.keys()
    (found,) = said.weights
    assert found.file in {file.published for file in PRESETS["htdemucs"].weights}
    assert found.sha256 is not None
    assert (said.gpu is None) == (said.device == "cpu")


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("NVIDIA GeForce RTX 3090, 24576, 1024", ("NVIDIA GeForce RTX 3090", 24576, 1024)),
        ("No devices were found", None),
        ("", None),
    ],
)
def test_what_the_driver_tells_of_a_gpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    expected: tuple[str, int, int] | None,
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\necho '{says}'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = gpu()
    if expected is None:
        assert (found, device_name()) == (None, "cpu")
    else:
        assert found is not None
        name, total, used = expected
        assert (found.name, found.vram_total, found.vram_used) == (name, total << 20, used << 20)
        assert device_name() == f"{name}, {total} MiB"
