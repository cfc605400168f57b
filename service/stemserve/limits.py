"""How much a caller may say where no file is expected: a request is held in memory, a file is not.

The limit of the web framework answers in plain text; this one leaves as a problem like the rest.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_LIMIT = 2**16
"""Bytes of a request's body, uploads aside."""

UPLOADS = "/inputs/"


class RequestLimit:
    """Ends a request whose body grows beyond `REQUEST_LIMIT`, while it is still being read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, its body counted."""
        if scope["type"] != "http" or scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > REQUEST_LIMIT:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self._app(scope, counted, send)
