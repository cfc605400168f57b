"""Who may call: whoever sends a token of the worker's; without one, this machine's own programs.

Anyone may ask for the worker's health, and for the page, which holds nothing secret.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from stemserve.problems import problem

OPEN_PATHS = ("/", "/health")


class BearerAuth:
    """Answers 401 before a route or a body is looked at, unless a right token comes with it.

    It stands before the routing, so that an unknown path tells a stranger nothing either.
    """

    def __init__(self, app: ASGIApp, tokens: Sequence[str]) -> None:
        self._app = app
        self._expected = [b"bearer " + token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._admits(scope):
            await self._app(scope, receive, send)
            return
        answer = problem(
            401,
            "unauthorized",
            "Send the worker's token as 'Authorization: Bearer TOKEN'; "
            "`stemctl endpoints` takes it from the stack.",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await answer(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        sent = scheme.lower() + b" " + token.strip()
        # All are compared, so that the time taken does not tell which one was nearly right.
        admitted = [secrets.compare_digest(sent, expected) for expected in self._expected]
        return any(admitted)


class LocalOnly:
    """Answers 403 to what other pages in a browser of this machine send to a worker without token.

    Such a page reaches loopback: under a name of its own that leads there, or from its own origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if not _is_loopback(host) or origin not in (None, f"http://{host}", f"https://{host}"):
                answer = problem(
                    403,
                    "foreign-page",
                    "Without a token this worker serves programs of its machine only: call it as"
                    " 127.0.0.1 or localhost, and not from another page.",
                )
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_loopback(host: str) -> bool:
    name = host.rpartition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
