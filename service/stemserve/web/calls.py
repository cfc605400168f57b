"""Every call is counted, and those that change something or fail are logged.

By the template of the route, never by the address as it came: that may hold anything.
"""

from __future__ import annotations

import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stemserve.logs import about
from stemserve.routes.parts import Parts

_JOB = re.compile(r"/(?:job|result)/([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:/|$)")
_READS = ("GET", "HEAD")
_FAILED = 400

_log = logging.getLogger(__name__)


class WatchCalls:
    """Counts and logs what goes through it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        found = _JOB.match(scope["path"])
        with about(found.group(1) if found else None):
            try:
                await self._app(scope, receive, watched)
            finally:
                _note(scope, status, time.monotonic() - began)


def _note(scope: Scope, status: int, seconds: float) -> None:
    method, route = scope["method"], getattr(scope.get("route"), "path", None)
    parts: Parts = scope["app"].state.parts
    parts.runner.metrics.answered(method, route, status)
    if method not in _READS or status >= _FAILED:
        _log.info(
            "%s %s: %d",
            method if method.isalpha() and len(method) < 10 else "?",
            route or "(no such address)",
            status,
            extra={"seconds": round(seconds, 3)},
        )
