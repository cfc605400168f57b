"""The OpenAPI document holds: whatever is sent, the worker answers as the document says."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from stemserve.app import create_app
from stemserve.schema import Range, parse_range

from tests.service.worker import RunningWorker, ended, post, upload

document = create_app(SecretStr("the-token")).openapi()
schema = schemathesis.openapi.from_dict(document)
# Strangers are a subject of their own, and parameters that nobody asked for are let be.
schema.config.generation.with_security_parameters = False
schema.config.generation.allow_extra_parameters = False
# JSON Schema cannot say all that a request must be: names are checked against what is there.
acceptance = schema.config.checks.positive_data_acceptance
acceptance.expected_statuses = [*acceptance.expected_statuses, "400", "422"]


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_contract(case: schemathesis.Case[Any], worker: RunningWorker) -> None:
    if isinstance(case.body, dict) and str(case.body.get("input_url")).startswith("http"):
        case.body["input_url"] = "http://127.0.0.1/"  # nothing else is to be asked for a song
    case.call_and_validate(base_url=worker.url, headers={"Authorization": f"Bearer {worker.token}"})


def test_what_a_job_answers_is_as_the_document_says(worker: RunningWorker) -> None:
    with worker.client() as client:
        content = b"copy for the contract"
        job_id = post(client, content)
        ended(client, job_id)
        sha256 = upload(client, content)
    job = {"job_id": job_id}
    mp3 = {"file": "instrumental.mp3"}
    cases = [
        schema["/inputs/{sha256}"]["GET"].Case(path_parameters={"sha256": sha256}),
        schema["/job"]["POST"].Case(body={"input_sha256": sha256}, media_type="application/json"),
        schema["/job/{job_id}"]["GET"].Case(path_parameters=job),
        schema["/job/{job_id}/logs"]["GET"].Case(path_parameters=job),
        schema["/result/{job_id}"]["GET"].Case(path_parameters=job, query=mp3),
        schema["/jobs"]["GET"].Case(),
        schema["/job/{job_id}"]["DELETE"].Case(path_parameters=job),
    ]
    for case in cases:
        answer = case.call_and_validate(
            base_url=worker.url, headers={"Authorization": f"Bearer {worker.token}"}
        )
        assert answer.status_code == 200


def test_the_worker_gives_the_document(worker: RunningWorker) -> None:
    with worker.client() as client:
        assert client.get("/openapi.json").json() == document


@given(start=st.integers(0, 7200), length=st.integers(1, 7200))
def test_ranges_are_read_as_seconds_and_as_clocks(start: int, length: int) -> None:
    def clock(seconds: int) -> str:
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.0"

    end = start + length
    whole = Range(start_seconds=start, end_seconds=end)
    assert parse_range(f"{start}-{end}") == parse_range(f"{clock(start)} - {clock(end)}") == whole
    assert parse_range(f"{clock(start)}-") == Range(start_seconds=start)


@given(text=st.text(alphabet="0123456789:.- x"))
def test_no_text_is_misread_as_a_range(text: str) -> None:
    try:
        span = parse_range(text)
    except ValueError:
        return
    assert span.end_seconds is None or span.start_seconds < span.end_seconds
