"""How an error leaves the worker: always as `Problem` in ``application/problem+json``."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from stemserve import errors
from stemserve.schema import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
"""What a caller is told to wait when the queue is full or the separation is not up."""

STATUSES: dict[type[errors.StemserveError], HTTPStatus] = {
    errors.UnknownNameError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DigestMismatchError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PresetUnavailableError: HTTPStatus.CONFLICT,
    errors.JobExistsError: HTTPStatus.CONFLICT,
    errors.JobEndedError: HTTPStatus.CONFLICT,
    errors.JobRunningError: HTTPStatus.BAD_REQUEST,
    errors.NotCompletedError: HTTPStatus.BAD_REQUEST,
    errors.NoSuchInputError: HTTPStatus.NOT_FOUND,
    errors.NoSuchJobError: HTTPStatus.NOT_FOUND,
    errors.NoSuchFileError: HTTPStatus.NOT_FOUND,
    errors.ResultsGoneError: HTTPStatus.GONE,
    errors.RequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NoSuchSegmentError: HTTPStatus.NOT_FOUND,
    errors.NotStartedError: HTTPStatus.CONFLICT,
    errors.SegmentsGoneError: HTTPStatus.GONE,
    errors.UploadStalledError: HTTPStatus.REQUEST_TIMEOUT,
    errors.InputTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.BadRangeError: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.DeliveryRunningError: HTTPStatus.CONFLICT,
    errors.NoSuchDeliveryError: HTTPStatus.NOT_FOUND,
    errors.NoSuchFetchError: HTTPStatus.NOT_FOUND,
    errors.QueueFullError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyDeliveriesError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyFetchesError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TooManyListenersError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.EndingError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DiskFullError: HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The status of each error that a call can end with."""

_PLAIN = {
    HTTPStatus.REQUEST_TIMEOUT: (
        "request-timeout",
        "The request's body did not come in time; send it at once.",
    ),
    HTTPStatus.BAD_REQUEST: ("bad-request", "The body cannot be read as JSON."),
    HTTPStatus.NOT_FOUND: ("not-found", "There is nothing at this address; see /openapi.json."),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method-not-allowed",
        "This address does not take this method; see /openapi.json.",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "request-too-large",
        "The request is too long; upload files with PUT /inputs/{sha256}.",
    ),
}
"""Words and details of the errors that no route raised."""

_RETRY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_log = logging.getLogger(__name__)


def problem(
    status: int,
    word: str,
    detail: str,
    *,
    choices: list[str] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer that carries one problem."""
    body = Problem(
        type=word, title=HTTPStatus(status).phrase, status=status, detail=detail, choices=choices
    )
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True),
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def declared(*kinds: type[errors.StemserveError]) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the errors that a call can end with."""
    answers: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        says = " ".join(str(kind.__doc__).split()).partition(" ``choices``")[0]
        add_problem(answers, STATUSES[kind], kind.type, says)
    return answers


def add_problem(
    answers: dict[int | str, dict[str, Any]], status: int, word: str, detail: str
) -> None:
    """Add one problem to what OpenAPI says of a call's answers."""
    phrase = HTTPStatus(status).phrase
    answer = answers.setdefault(str(status), {"description": phrase})
    if status in _RETRY:
        waits = {"description": "Seconds to wait", "schema": {"type": "integer"}}
        answer.setdefault("headers", {})["Retry-After"] = waits
    content = answer.setdefault("content", {}).setdefault(MEDIA_TYPE, {})
    content["schema"] = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    body = Problem(type=word, title=phrase, status=status, detail=detail)
    content.setdefault("examples", {})[word] = {
        "value": body.model_dump(mode="json", exclude_none=True)
    }


def handle_problems(app: FastAPI) -> None:
    """Let every error of ``app`` leave as a problem."""
    app.add_exception_handler(errors.StemserveError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.StemserveError)  # noqa: S101 (registered for it alone)
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        raise error
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status in _RETRY else None
    choices = getattr(error, "choices", None)
    return problem(status, error.type, str(error), choices=choices, headers=headers)


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for it alone)
    faults = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"][1:])
        what = str(fault["msg"]).removeprefix("Value error, ")
        faults.append(f"{where}: {what}" if where else what)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "; ".join(faults))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for it alone)
    status = HTTPStatus(error.status_code)
    word, detail = _PLAIN.get(status, ("http-error", str(error.detail)))
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request))
    return problem(status, word, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """What the address takes, by all routes that have it; the router names those of one only."""
    return [
        method
        for method in ("GET", "PUT", "POST", "DELETE")
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    ]


def _unknown(_: Request, error: Exception) -> Response:
    _log.error("a call failed", exc_info=error)
    detail = "The worker failed at this call; its log says why."
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail)
