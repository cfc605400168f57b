"""The page for people, at ``/``: one file that loads nothing, and a policy that keeps it to that.

It holds nothing secret, so it needs no token; what it asks of the worker then does.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter()


@cache
def _page() -> tuple[str, dict[str, str]]:
    """The page and its headers: its own script and style are named by their digests."""
    page = files("stemserve").joinpath("page.html").read_text()
    policy = {
        "default-src": "'none'",
        "script-src": _digest(page, "script"),
        "style-src": _digest(page, "style"),
        "connect-src": "'self'",
        "media-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return page, {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _digest(page: str, tag: str) -> str:
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@router.get("/", include_in_schema=False)
def page() -> HTMLResponse:
    """A song in, its stems out, in a browser."""
    text, headers = _page()
    return HTMLResponse(text, headers=headers)
