"""The OpenAPI document: what the routes say, and what is so for all of them.

The routes declare the errors that they raise; here come those that stand before every route, an
example of each body, and of each error under its ``type``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from stemserve.problems import add_problem
from stemserve.schema import Problem
from stemserve.web.examples import EXAMPLES

DESCRIPTION = """Separates songs into stems.

Upload a song with `PUT /inputs/{sha256}`, or name its address; post a job; ask for it until it is
completed; fetch its results. Every error is a problem (RFC 9457): its `type` is stable, its
`detail` says what to do next. Fields may be added to answers; nothing else of an answer changes.
"""

WHO_IS_SERVED = (
    "Send the worker's token as `Authorization: Bearer TOKEN`. Only `/health`, and the page at `/`,"
    " are served without it."
)

TAGS = [
    {"name": "worker", "description": "How the worker is, and what it can do."},
    {"name": "inputs", "description": "Songs, uploaded once under the name of their content."},
    {"name": "jobs", "description": "One song each, and what is wanted of it."},
    {"name": "segments", "description": "What is finished of a job, while it runs."},
    {"name": "results", "description": "The files that a job made."},
]

Document = dict[str, Any]

_EVERYWHERE = {
    400: ("bad-request", "The request is no valid HTTP."),
    431: ("headers-too-large", "A request's address and headers are too long; send less."),
    500: ("internal-error", "The worker failed at this call; its log says why."),
    503: ("too-many-connections", "The worker has too many connections; try again later."),
}
_GUARDED = {401: ("unauthorized", "Send the worker's token as 'Authorization: Bearer TOKEN'.")}
_OPEN = {403: ("foreign-page", "Without a token this worker serves programs of its machine only.")}
_ASKED = {422: ("invalid-request", "limit: Input should be less than or equal to 1000")}
COMMON = {
    f"{status} {word}"
    for table in (_EVERYWHERE, _GUARDED, _ASKED)
    for status, (word, _) in table.items()
}
"""The errors that next to any call can end with: status and type."""

_WITH_JSON = {
    400: ("bad-request", "The body cannot be read as JSON."),
    408: ("request-timeout", "The request's body did not come in time; send it at once."),
    413: ("request-too-large", "The request is too long; upload files with PUT /inputs/{sha256}."),
}


def complete(generate: Callable[[], Document], *, guarded: bool) -> Callable[[], Document]:
    """What gives the document, made of what FastAPI gives; ``guarded``: a token is asked for."""

    @cache
    def openapi() -> Document:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas[Problem.__name__] = Problem.model_json_schema()
        for name, schema in schemas.items():
            if name in EXAMPLES:
                schema["examples"] = EXAMPLES[name]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _add_errors(operation, guarded=guarded, anyones=path == "/health")
        return document

    return openapi


def _add_errors(operation: Document, *, guarded: bool, anyones: bool) -> None:
    errors = dict(_EVERYWHERE)
    if not guarded:
        errors |= _OPEN
    elif not anyones:
        errors |= _GUARDED
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        errors |= _WITH_JSON
    answers = operation["responses"]
    if "parameters" in operation or "requestBody" in operation:
        errors |= _ASKED
    else:
        answers.pop("422", None)
    for status, (word, detail) in errors.items():
        add_problem(answers, status, word, detail)
    operation["responses"] = dict(sorted(answers.items()))
