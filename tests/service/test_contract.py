"""The OpenAPI document holds: whatever is sent, the worker answers as the document says."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from pydantic import SecretStr
from stemserve.app import create_app

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
