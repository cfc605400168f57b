"""How much a caller may say where no file is expected: a request is held in memory, a file is not.

The limit of the web framework answers in plain text; these leave as problems like the rest.
"""

from __future__ import annotations

from http import HTTPStatus

import anyio
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stemserve.problems import problem
from stemserve.settings import Settings
from stemserve.web.connections import headers_too_large

UPLOADS = "/inputs/"

HEADERS = 100
"""Fields of a request's head."""


class RequestLimit:
    """Ends a request whose head is too long, or whose body is, or takes too long to come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, its body counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        settings: Settings = scope["app"].state.parts.settings
        size = sum(len(name) + len(value) for name, value in scope["headers"])
        size += len(scope["raw_path"]) + len(scope["query_string"])
        if size > settings.header_limit or len(scope["headers"]) > HEADERS:
            await problem(*headers_too_large(settings.header_limit))(scope, receive, send)
        elif {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # A proxy that believes the one where we believe the other takes a part of this body
            # for the next caller's request.
            detail = "A request has a Content-Length or a Transfer-Encoding, not both."
            refusal = problem(400, "bad-request", detail, headers={"Connection": "close"})
            await refusal(scope, receive, send)
        elif scope["method"] == "PUT" and scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
        else:
            await self._app(scope, _counted(receive, settings), send)


def _counted(receive: Receive, settings: Settings) -> Receive:
    size = 0
    whole = False
    overdue = anyio.current_time() + settings.body_timeout

    async def counted() -> Message:
        nonlocal size, whole
        if whole:  # what comes now is the caller's going away
            return await receive()
        with anyio.move_on_after(overdue - anyio.current_time()) as waiting:
            message = await receive()
        if waiting.cancelled_caught:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT)
        size += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if size > settings.body_limit:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return message

    return counted
