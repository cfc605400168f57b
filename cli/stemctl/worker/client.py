"""One worker over HTTP: each call of its contract as a method, with bounded waits and retries.

What fails in a way that may pass (no connection, a timeout, 5xx, 429) is tried again, with growing
pauses or the one that the worker asks for; everything else is a `WorkerError` at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import anyio
import httpx
import stamina
from pydantic import BaseModel, ValidationError
from stamina.instrumentation import set_on_retry_hooks
from stemserve.schema import (
    Deleted,
    Delivery,
    Fetch,
    Health,
    Input,
    Job,
    JobCreated,
    JobRequest,
    Jobs,
    JobStatus,
    Lease,
    Logs,
    Problem,
    Ready,
    ResultFile,
    Segments,
    Status,
)

from stemctl.errors import InputError, WorkerError
from stemctl.fleet.stack import Endpoint
from stemctl.worker.retries import RETRY_FOR_S, GarbledError, may_pass, pause, retry_after
from stemctl.worker.tls import trusted, why_unreachable

TIMEOUT = httpx.Timeout(30, connect=5)
"""Seconds without a byte before a call is given up; it bounds pauses, not long transfers."""

CHUNK = 1 << 20
DAMAGED_TRIES = 2
"""A worker whose bytes are not what it has announced is asked for them once more."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")

set_on_retry_hooks([])  # a retry is no news; what comes of it is

Model = TypeVar("Model", bound=BaseModel)
Moved = Callable[[int], None]
"""Told after each piece of a transfer how many bytes have gone so far."""


class UnreachableError(WorkerError):
    """The worker gave no answer, however often it was asked."""

    type = "worker-unreachable"


class RefusedError(WorkerError):
    """The worker answered, and said no. ``kind`` is the stable word of its problem."""

    type = "worker-refused"

    def __init__(
        self, message: str, status: int, kind: str, detail: str, pause_s: float | None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.pause_s = pause_s
        """How long it asks to be left alone, in seconds."""


class BadResultError(WorkerError):
    """What a worker gave as a result cannot be one."""

    type = "bad-result"


class Worker:
    """The client of one worker. Use it as an async context manager; calls may overlap.

    Every method may raise `WorkerError`: `UnreachableError` after the last try, `RefusedError`
    with the worker's own words.
    """

    def __init__(self, endpoint: Endpoint, token: str | None, *, attempts: int = 5) -> None:
        self.endpoint = endpoint
        self._attempts = attempts
        parts = urlsplit(endpoint.url)
        self._http = httpx.AsyncClient(
            base_url=endpoint.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT,
            trust_env=parts.hostname not in LOOPBACK,  # no proxy to ourselves
            verify=trusted(endpoint) if parts.scheme == "https" else False,
        )

    @property
    def slot(self) -> str:
        """The worker's name, for people."""
        return self.endpoint.slot

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def health(self) -> Health:
        """Whether it is up; needs no token."""
        return await self._ask(Health, "GET", "/health")

    async def ready(self) -> Ready:
        """Whether a job would start now, and if not, why."""
        response = await self._retry(lambda: self._http.get("/ready"), final=503)
        if response.status_code not in (200, 503):
            raise self._refusal(response)
        try:
            return Ready.model_validate_json(response.content, extra="ignore")
        except ValidationError:
            return Ready(ready=False, reason=self._refusal(response).detail)

    async def status(self) -> Status:
        """What it is doing, and which presets it can serve."""
        return await self._ask(Status, "GET", "/status")

    async def renew_lease(self) -> Lease:
        """Let it go on; the answer says until when."""
        return await self._ask(Lease, "POST", "/lease")

    async def jobs(self, limit: int = 50, status: JobStatus | None = None) -> Jobs:
        """Its newest jobs, of one status or of all."""
        params = {"limit": limit} | ({"status": status.value} if status else {})
        return await self._ask(Jobs, "GET", "/jobs", params=params)

    async def job(self, job_id: str) -> Job:
        """Where a job is."""
        return await self._ask(Job, "GET", _job(job_id))

    async def logs(self, job_id: str, offset: int) -> Logs:
        """A job's log from a byte offset on."""
        return await self._ask(Logs, "GET", _job(job_id, "/logs"), params={"offset": offset})

    async def post(self, request: JobRequest) -> JobCreated:
        """Queue a job; the same request again is the same job."""
        # Only what was asked, so that a worker of another version need not know all we do.
        body = request.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        return await self._ask(JobCreated, "POST", "/job", json=body)

    async def cancel(self, job_id: str) -> Job:
        """End a pending or running job."""
        return await self._ask(Job, "POST", _job(job_id, "/cancel"))

    async def delete(self, job_id: str) -> Deleted:
        """Remove an ended job with its results."""
        return await self._ask(Deleted, "DELETE", _job(job_id))

    async def upload(self, path: Path, sha256: str, moved: Moved) -> None:
        """Send an input's bytes, unless the worker has them.

        Raises:
            InputError: the file was changed meanwhile.
            OSError: it cannot be read.
        """
        there = await self._retry(lambda: self._http.get(f"/inputs/{sha256}"))
        if there.status_code != 404:
            self._parse(Input, there)
            return
        size = (await anyio.Path(path).stat()).st_size

        async def put() -> httpx.Response:
            return await self._http.put(
                f"/inputs/{sha256}",
                content=_pieces(path, size, moved),
                headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
            )

        self._parse(Input, await self._retry(put, within=None))

    async def segments(self, job_id: str) -> Segments:
        """What is finished of a job, which may still run."""
        return await self._ask(Segments, "GET", _job(job_id, "/segments"))

    async def segment(self, job_id: str, index: int, stem: str, place: Path, moved: Moved) -> None:
        """Bring one stem of a finished segment to ``place``, as a WAV file; raises `OSError`."""
        await self._fetch(_job(job_id, f"/segments/{index}/{stem}"), {}, place, moved, None)

    async def download(self, job_id: str, file: ResultFile, place: Path, moved: Moved) -> None:
        """Bring one result to ``place``, and see that its bytes are those that were announced.

        Raises:
            BadResultError: they are not, however often they were asked for.
            OSError: ``place`` cannot be written, or the disk is full.
        """
        await self._fetch(f"/result/{job_id}", {"file": file.name}, place, moved, file)

    async def deliver(self, job_id: str, file: str, url: str) -> Delivery:
        """Let it send one result to ``url``, or see that it does."""
        body = {"file": file, "url": url}
        return await self._ask(Delivery, "POST", f"/result/{job_id}/deliver", json=body)

    async def delivery(self, job_id: str, file: str) -> Delivery:
        """How far that is."""
        return await self._ask(Delivery, "GET", f"/result/{job_id}/deliver", params={"file": file})

    async def deliver_segment(self, job_id: str, index: int, stem: str, url: str) -> Delivery:
        """Let it send one stem of a finished segment to ``url``, or see that it does."""
        path = _job(job_id, f"/segments/{index}/{stem}/deliver")
        return await self._ask(Delivery, "POST", path, json={"url": url})

    async def segment_delivery(self, job_id: str, index: int, stem: str) -> Delivery:
        """How far that is."""
        path = _job(job_id, f"/segments/{index}/{stem}/deliver")
        return await self._ask(Delivery, "GET", path)

    async def fetch_input(self, sha256: str, url: str) -> Fetch:
        """Let it fetch an input from ``url``, or see that it does or has."""
        body = {"input_url": url}
        return await self._ask(Fetch, "POST", f"/inputs/{sha256}/fetch", json=body)

    async def fetching(self, sha256: str) -> Fetch:
        """How far that is."""
        return await self._ask(Fetch, "GET", f"/inputs/{sha256}/fetch")

    async def _fetch(
        self, path: str, params: dict[str, str], place: Path, moved: Moved, file: ResultFile | None
    ) -> None:
        damaged = 0

        async def get() -> httpx.Response:
            nonlocal damaged
            async with self._http.stream("GET", path, params=params) as response:
                if not response.is_success:
                    await response.aread()
                    return response
                digest, size = hashlib.sha256(), 0
                async with await anyio.open_file(place, "wb") as out:
                    async for piece in response.aiter_bytes(CHUNK):
                        await out.write(piece)
                        digest.update(piece)
                        size += len(piece)
                        moved(size)
                if file is not None and (size, digest.hexdigest()) != (file.size, file.sha256):
                    damaged += 1
                    if damaged == DAMAGED_TRIES:
                        raise BadResultError(
                            f"worker {self.slot}: {place.name} arrived damaged each time: "
                            "submit it again"
                        )
                    raise GarbledError
            return response

        response = await self._retry(get, within=None)
        if not response.is_success:
            raise self._refusal(response)

    async def _ask(self, model: type[Model], method: str, path: str, **how: Any) -> Model:  # noqa: ANN401
        response = await self._retry(lambda: self._http.request(method, path, **how))
        return self._parse(model, response)

    async def _retry(
        self,
        call: Callable[[], Awaitable[httpx.Response]],
        *,
        final: int | None = None,
        within: float | None = RETRY_FOR_S,
    ) -> httpx.Response:
        try:
            async for attempt in stamina.retry_context(
                on=pause, attempts=self._attempts, timeout=within, wait_initial=0.2
            ):
                with attempt:
                    response = await call()
                    if may_pass(response.status_code) and response.status_code != final:
                        response.raise_for_status()
                    return response
        except httpx.HTTPStatusError as error:
            return error.response
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"worker {self.slot} at {self.endpoint.url} {why_unreachable(self.endpoint, error)}"
            ) from error
        raise AssertionError("a retry ends with an answer or an error")

    def _parse(self, model: type[Model], response: httpx.Response) -> Model:
        if not response.is_success:
            raise self._refusal(response)
        try:
            return model.model_validate_json(response.content, extra="ignore")
        except ValidationError:
            raise WorkerError(
                f"worker {self.slot} gave an answer that stemctl does not know: is "
                f"{self.endpoint.url} a worker, and of the same version?"
            ) from None

    def _refusal(self, response: httpx.Response) -> RefusedError:
        try:
            problem = Problem.model_validate_json(response.content)
            kind, detail = problem.type, problem.detail
            if problem.choices:
                detail += f" (there is: {', '.join(problem.choices)})"
        except ValidationError:
            kind = "http-error"
            detail = f"{response.request.url.path}: {response.status_code} {response.reason_phrase}"
        if response.status_code == 401:
            detail = "the token is refused: run `pulumi up`, or with --endpoint set STEMCTL_TOKEN"
        asked = retry_after(response)
        return RefusedError(
            f"worker {self.slot}: {detail}", response.status_code, kind, detail, asked
        )


def _job(job_id: str, call: str = "") -> str:
    """The path of a job; ``job_id`` may be whatever a user has typed."""
    return f"/job/{quote(job_id, safe='')}{call}"


async def _pieces(path: Path, size: int, moved: Moved) -> AsyncIterator[bytes]:
    sent = 0
    async with await anyio.open_file(path, "rb") as file:
        while sent < size:
            piece = await file.read(min(CHUNK, size - sent))
            if not piece:
                raise InputError("it was changed while it was sent: submit it again")
            yield piece
            sent += len(piece)
            moved(sent)
