"""Inputs, uploaded or fetched once under the name of their content."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Request, Response
from fastapi import Path as PathParameter
from starlette.requests import ClientDisconnect

from stemserve.carrying.fetches import collect
from stemserve.errors import (
    DigestMismatchError,
    DiskFullError,
    InputTooLargeError,
    NoSuchFetchError,
    NoSuchInputError,
    TooManyFetchesError,
    UploadStalledError,
)
from stemserve.problems import declared
from stemserve.routes.parts import Worker
from stemserve.schema import Fetch, FetchRequest, FetchStatus, Input, Sha256
from stemserve.settings import Settings

router = APIRouter(tags=["inputs"])

Name = Annotated[Sha256, PathParameter(description="SHA-256 of the input's bytes")]


@router.get("/inputs/{sha256}", responses=declared(NoSuchInputError))
def get_input(sha256: Name, worker: Worker) -> Input:
    """Whether the input is there."""
    found = worker.inputs.find(sha256)
    if found is None:
        raise NoSuchInputError(f"There is no such input here; send it: PUT /inputs/{sha256}.")
    worker.retention.use_input(sha256)
    return found


@router.put(
    "/inputs/{sha256}",
    responses={
        201: {"model": Input, "description": "It is stored; 200: it was there"},
        **declared(DigestMismatchError, InputTooLargeError, UploadStalledError, DiskFullError),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def put_input(sha256: Name, request: Request, response: Response, worker: Worker) -> Input:
    """Upload an input, streamed. One that is there already is not read again."""
    found = worker.inputs.find(sha256)
    if found is not None:
        await run_sync(worker.retention.use_input, sha256)
        return found
    length = request.headers.get("content-length", "")
    if length.isdecimal():
        await run_sync(worker.retention.make_room, int(length))
        worker.inputs.check_room(int(length))
    stored = await worker.inputs.store(_body(request, worker.settings), sha256)
    await run_sync(worker.retention.use_input, sha256)
    response.status_code = 201
    return stored


@router.post(
    "/inputs/{sha256}/fetch",
    status_code=202,
    responses=declared(NoSuchInputError, TooManyFetchesError),
)
def fetch_input(sha256: Name, worker: Worker, body: FetchRequest, after: BackgroundTasks) -> Fetch:
    """Fetch an input from a URL. What is there already, or on its way, is not asked for again."""
    found = worker.inputs.find(sha256)
    if found is not None:
        worker.retention.use_input(sha256)
        return Fetch(sha256=sha256, status=FetchStatus.FETCHED, size=found.size)
    fetching = worker.fetches.begin(sha256)
    if fetching is not None:
        after.add_task(
            collect,
            *(fetching, str(body.input_url), worker.inputs, worker.retention, worker.settings),
        )
    return worker.fetches.find(sha256)


@router.get("/inputs/{sha256}/fetch", responses=declared(NoSuchFetchError))
def get_fetch(sha256: Name, worker: Worker) -> Fetch:
    """How far a fetch is."""
    return worker.fetches.find(sha256)


async def _body(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """The request's body; raises `UploadStalledError` if the sender pauses, drips or goes away."""
    stream = request.stream()
    stall_s, came, since = settings.upload_stall, 0, anyio.current_time()
    while True:
        try:
            with anyio.fail_after(stall_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise UploadStalledError(
                f"The upload paused for {stall_s:g} s; send it again."
            ) from None
        except ClientDisconnect:
            raise UploadStalledError("The upload was broken off; send it again.") from None
        if chunk is None:
            return
        yield chunk
        came += len(chunk)
        now = anyio.current_time()
        if now - since > stall_s:
            if came < settings.upload_rate * (now - since):
                raise UploadStalledError(
                    f"The upload came at less than {settings.upload_rate} bytes a second; send it"
                    " again over a better line."
                )
            came, since = 0, now
