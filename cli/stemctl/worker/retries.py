"""What is tried again over HTTP, and after how long: what fails in a way that may pass."""

from __future__ import annotations

import httpx

from stemctl.worker.tls import not_believed

RETRY_FOR_S = 30.0
"""No short call is begun again after that; a transfer that breaks is, however long it took."""
LONGEST_PAUSE_S = 30.0


class GarbledError(Exception):
    """A download's bytes are not those that were announced."""


def may_pass(status: int) -> bool:
    """Whether the same call may succeed later. A full disk (507) does not empty itself."""
    return status == 429 or 500 <= status < 507


def pause(error: Exception) -> bool | float:
    """Whether to try again; a number is the pause in seconds that the worker asks for."""
    if isinstance(error, httpx.HTTPStatusError):
        asked = retry_after(error.response)
        return True if asked is None else min(asked, LONGEST_PAUSE_S)
    if not_believed(error):
        return False
    return isinstance(error, httpx.TransportError | GarbledError)


def retry_after(response: httpx.Response) -> float | None:
    """How long a worker asks to be left alone, in seconds."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
