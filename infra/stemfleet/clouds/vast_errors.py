"""What Vast.ai's failures mean: each in our words, with what to do next.

An error may come with any status, 200 among them, and its text may be JSON, plain, or a page of
HTML from something in between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from stemfleet.clouds.base import (
    BadKeyError,
    CloudError,
    NoCapacityError,
    NoCreditError,
    RateLimitedError,
    RefusedError,
    UnreachableError,
)

KEY_VARIABLES = ("VAST_API_KEY", "VASTAI_API_KEY")
SPACING = {"search": 6.0, "rent": 4.5, "list": 1.0, "destroy": 3.0, "user": 1.0}
"""Seconds between two calls, by Vast.ai's documentation of each endpoint."""

PATIENCE_SECONDS = 60.0
"""The longest that Vast.ai may ask to wait before a call is given up."""

NO_CREDIT = re.compile(r"credit|balance|spend_?\s?rate|missing_billing|payment", re.IGNORECASE)
NO_SUCH_MACHINE = re.compile(r"no_such_instance|not_found|no such instance", re.IGNORECASE)
THRESHOLD = re.compile(r"threshold=([\d.]+)")


class OfferGoneError(NoCapacityError):
    """Somebody else has rented the offer, or its machine has gone."""


class MachineGoneError(RefusedError):
    """There is no machine of that id."""


class LeftBehindError(CloudError):
    """A rental was refused, yet it made a machine: ``id``."""

    def __init__(self, message: str, id_: int) -> None:
        super().__init__(message)
        self.id = id_


class LaterError(Exception):
    """May be asked again, else it comes to ``outcome``.

    After ``seconds``, if Vast.ai says how long, and then nothing was done; else that is not known.
    """

    def __init__(self, outcome: CloudError, seconds: float | None = None) -> None:
        super().__init__(str(outcome))
        self.outcome, self.seconds = outcome, seconds


def no_answer(endpoint: str, reason: str) -> LaterError:
    """Of a call that came to nothing, or to something that is no answer."""
    return LaterError(
        UnreachableError(f"Vast.ai gave no usable answer to `{endpoint}` ({reason}): try again")
    )


def read_failure(
    endpoint: str, status: int, text: str, headers: Mapping[str, str], secrets: Collection[str]
) -> CloudError | LaterError:
    """The error that an answer is. Its message holds none of the ``secrets``."""
    body = _parsed(text)
    said = _said(body, text, secrets) or str(status)
    error = str(body.get("error", ""))
    if status == 429:
        return _too_many(endpoint, error, text, headers)
    if status >= 500 or status == 408:
        return no_answer(endpoint, str(status))
    if status in (401, 403) or error == "auth_error":
        return BadKeyError(
            f"Vast.ai does not accept {KEY_VARIABLES[0]} ({said}): "
            "make another at https://cloud.vast.ai/manage-keys/"
        )
    if endpoint == "rent":
        if isinstance(left := body.get("new_contract"), int):
            return LeftBehindError(f"Vast.ai refuses the bid: {said}", left)
        if "no_such_ask" in text:
            return OfferGoneError(f"the offer is gone: {said}; try again")
    if endpoint == "destroy" and (status == 404 or NO_SUCH_MACHINE.search(said)):
        return MachineGoneError(said)
    if status == 402 or NO_CREDIT.search(said):
        return NoCreditError(
            f"the Vast.ai account cannot pay for this ({said}): add credit, or have its "
            "spending limit raised, at https://cloud.vast.ai/billing/"
        )
    if endpoint == "list":
        # Whatever the reason, nothing is known of the machines.
        return UnreachableError(
            f"Vast.ai does not list the account's machines ({said}): try again; "
            "if it stays so, update stemfleet"
        )
    return RefusedError(
        f"Vast.ai refuses `{endpoint}` ({status}): {said}. Change what the group asks for"
    )


def _too_many(
    endpoint: str, error: str, text: str, headers: Mapping[str, str]
) -> CloudError | LaterError:
    if error == "search_quota_exceeded":
        return RateLimitedError(
            "the account's searches of today are used up: try again after midnight UTC"
        )
    outcome = RateLimitedError(
        f"Vast.ai goes on asking for patience at `{endpoint}`: wait a minute, then try again"
    )
    threshold = THRESHOLD.search(text)
    asked = _number(headers.get("Retry-After")) or _number(threshold[1] if threshold else None)
    wait = SPACING.get(endpoint, 1.0) if asked is None else asked
    return outcome if wait > PATIENCE_SECONDS else LaterError(outcome, wait)


def _parsed(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _said(body: dict[str, Any], text: str, secrets: Collection[str]) -> str:
    """The reason that an answer gives, for people, and no secret that it may quote."""
    parts = [str(body[key]) for key in ("error", "msg", "message") if body.get(key)]
    plain = ": ".join(parts) if parts else ("" if "<" in text else text)
    for secret in secrets:
        if len(secret) >= 8:
            plain = plain.replace(secret, "…")
    return " ".join(plain.split())[:300]


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
