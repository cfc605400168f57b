"""The OpenAPI document holds: whatever is sent, the worker answers as the document says."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import schemathesis
import stemserve.schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from pydantic import SecretStr
from stemserve.schema import Problem, Range, parse_range
from stemserve.web.app import create_app
from stemserve.web.examples import EXAMPLES
from stemserve.web.reference import markdown

from tests.service.worker import RunningWorker, ended, post, upload

document = create_app(SecretStr("the-token")).openapi()
schema = schemathesis.openapi.from_dict(deepcopy(document))
# Strangers are a subject of their own, and parameters that nobody asked for are let be.
schema.config.generation.with_security_parameters = False
schema.config.generation.allow_extra_parameters = False
# JSON Schema cannot say all that a request must be: names are checked against what is there.
acceptance = schema.config.checks.positive_data_acceptance
acceptance.expected_statuses = [*acceptance.expected_statuses, "400", "410", "422"]


def stay_at_home(case: schemathesis.Case[Any]) -> None:
    """Let no worker of a test ask anybody, for a song, to tell of a job or to give its results."""
    for field in ("input_url", "webhook_url", "url"):
        if isinstance(case.body, dict) and str(case.body.get(field)).startswith("http"):
            case.body[field] = "http://127.0.0.1/"


@schema.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_the_contract(case: schemathesis.Case[Any], worker: RunningWorker) -> None:
    stay_at_home(case)
    case.call_and_validate(base_url=worker.url, headers={"Authorization": f"Bearer {worker.token}"})


def test_calls_that_follow_each_other(worker: RunningWorker) -> None:
    """What one call answers is what the next is made of: jobs posted, looked at, ended, deleted."""

    class Calls(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
            stay_at_home(case)
            return {"base_url": worker.url, "headers": {"Authorization": f"Bearer {worker.token}"}}

    run_state_machine_as_test(
        Calls,
        settings=settings(
            max_examples=15,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def operations() -> list[tuple[str, dict[str, Any]]]:
    """Every call of the document, with its name."""
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_error_of_every_call_is_told_by_its_type_and_an_example() -> None:
    statuses: dict[str, int] = {}
    for name, operation in operations():
        answers = operation["responses"]
        assert {"400", "431", "500", "503"} <= set(answers), name
        assert ("401" in answers) == (name != "GET /health")
        assert ("401" in answers) == (operation.get("security") == [{"HTTPBearer": []}])
        for status, answer in answers.items():
            if int(status) < 400 or "application/json" in answer["content"]:
                continue
            media = answer["content"]["application/problem+json"]
            assert media["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert media["examples"], (name, status)
            for word, example in media["examples"].items():
                problem = Problem.model_validate(example["value"])
                assert (problem.type, str(problem.status)) == (word, status), name
                # A type is stable: it comes with one status, wherever it comes.
                assert statuses.setdefault(word, problem.status) == problem.status


def test_every_body_has_an_example_that_is_one_and_every_parameter_a_description() -> None:
    for name, operation in operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in [body.get("content", {}) for body in bodies]:
            if "schema" in content.get("application/json", {}):
                model = content["application/json"]["schema"].get("$ref", "").rpartition("/")[2]
                if model:  # a result, which may be a JSON file, has no schema
                    assert model in EXAMPLES, f"{name}: add an example of {model} to examples.py"
        assert operation["description"], name
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (name, parameter["name"])
    for model, examples in EXAMPLES.items():
        for example in examples:
            getattr(stemserve.schema, model).model_validate(example)


def test_the_reference_is_of_this_contract() -> None:
    written = Path(__file__).parents[2] / "service" / "API.md"
    assert written.read_text() == markdown(document), (
        "service/API.md is of another contract; make it anew:"
        " stemserve openapi --markdown > service/API.md"
    )
    for name, _ in operations():
        assert f"### `{name}`" in markdown(document)


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
