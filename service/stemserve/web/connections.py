"""What one connection may cost: how many there are, and how long each may keep the worker waiting.

uvicorn bounds the bytes of a request's head and the silence between two requests; here are the
bounds that it lacks, and its own refusals as problems like all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from stemserve.problems import RETRY_AFTER_SECONDS, problem
from stemserve.settings import Settings


@dataclass(frozen=True)
class _Limits:
    connections: int
    header_bytes: int
    head_s: float
    download_stall_s: float


def limited_protocol(settings: Settings) -> type[H11Protocol]:
    """HTTP for uvicorn, within the limits of the settings."""

    class Limited(_LimitedProtocol):
        limits = _Limits(
            settings.connection_limit,
            settings.header_limit,
            settings.header_timeout,
            settings.download_stall,
        )

    return Limited


class _Wait:
    """At most so long for one thing; stopped when it has come."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float, overdue: Callable[[], None]) -> None:
        """Begin to wait, unless it has begun."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, overdue)

    def stop(self) -> None:
        """No longer wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _LimitedProtocol(H11Protocol):
    limits: ClassVar[_Limits]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._head = _Wait()
        self._reader = _Wait()
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too-many-connections",
                f"The worker has {self.limits.connections} connections already; try again later.",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        else:
            self._head.start(self.limits.head_s, self._head_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._reader.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head.stop()
        else:
            self._head.start(self.limits.head_s, self._head_overdue)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; uvicorn calls this."""
        if len(self.conn.trailing_data[0]) > self.limits.header_bytes:
            self._refuse(*headers_too_large(self.limits.header_bytes))
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "bad-request", "The request is no valid HTTP.")

    def pause_writing(self) -> None:
        """The caller takes what it asked for more slowly than it comes."""
        super().pause_writing()
        self._reader.start(self.limits.download_stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has taken enough."""
        self._reader.stop()
        super().resume_writing()

    def _head_overdue(self) -> None:
        if not self.transport.is_closing():
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                "request-timeout",
                f"No request came within {self.limits.head_s:g} s; send it at once.",
            )

    def _refuse(
        self, status: int, word: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = problem(status, word, detail, headers=headers)
            fields = [*answer.raw_headers, (b"connection", b"close")]
            reason = HTTPStatus(status).phrase.encode()
            head = h11.Response(status_code=status, headers=fields, reason=reason)
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def headers_too_large(limit: int) -> tuple[HTTPStatus, str, str]:
    """Status, word and detail of the problem with a head of more than ``limit`` bytes."""
    return (
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "headers-too-large",
        f"A request's address and headers may be {limit} bytes; send less.",
    )
