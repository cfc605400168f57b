"""Vast.ai through its own SDK: paced calls, bounded patience, and its failures in our words.

The SDK is told to try once. It would repeat a rental that got no answer, and each repetition may
be another machine that is paid for; and it takes an error in an answer of status 200 for a result.
What may be repeated is repeated here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NoReturn, TypeVar

import stamina
from stamina.instrumentation import set_on_retry_hooks

from stemfleet.clouds.base import (
    BadKeyError,
    CloudError,
    NoCapacityError,
    NoCreditError,
    RateLimitedError,
    RefusedError,
    UnreachableError,
)
from stemfleet.clouds.pace import Pace

Row = dict[str, Any]
T = TypeVar("T")

KEY_VARIABLES = ("VAST_API_KEY", "VASTAI_API_KEY")
URL_VARIABLE = "VAST_URL"
"""Where the API is, if not at Vast.ai; the SDK's own variable."""

DEFAULT_URL = "https://console.vast.ai"

SPACING = {"search": 6.0, "rent": 4.5, "list": 1.0, "destroy": 3.0, "user": 1.0}
"""Seconds between two calls, by Vast.ai's documentation of each endpoint."""

MARGIN = 1.02
"""Calls do not arrive as evenly as they leave."""

TIMEOUT_SECONDS = 45.0
"""For one call."""

TRIES = 6
PATIENCE_SECONDS = 60.0
"""The longest that Vast.ai may ask to wait before a call is given up."""

PAGE = 25
PAGES = 1000

NO_CREDIT = re.compile(r"credit|balance|spend_?\s?rate|missing_billing|payment", re.IGNORECASE)
NO_SUCH_MACHINE = re.compile(r"no_such_instance|not_found|no such instance", re.IGNORECASE)
THRESHOLD = re.compile(r"threshold=([\d.]+)")

set_on_retry_hooks([])  # a retry is no news; what comes of it is


class OfferGoneError(NoCapacityError):
    """Somebody else has rented the offer, or its machine has gone."""


class LeftBehindError(CloudError):
    """A rental was refused, yet it made a machine: ``id``."""

    def __init__(self, message: str, id_: int) -> None:
        super().__init__(message)
        self.id = id_


class _LaterError(Exception):
    """May be asked again after so many seconds, else it comes to ``outcome``."""

    def __init__(self, outcome: CloudError, seconds: float | None) -> None:
        super().__init__(str(outcome))
        self.outcome, self.seconds = outcome, seconds


def find_key() -> str:
    """The account's key.

    Raises:
        BadKeyError: there is none.
    """
    for name in KEY_VARIABLES:
        if key := os.environ.get(name, "").strip():
            return key
    raise BadKeyError(
        f"{KEY_VARIABLES[0]} is not set: make a key at https://cloud.vast.ai/manage-keys/, "
        f"then `export {KEY_VARIABLES[0]}=…`"
    )


class VastApi:
    """One account of Vast.ai. May be used from many threads, which take turns."""

    def __init__(self, url: str, key: str) -> None:
        # Imported here: it brings much that a fleet on other clouds need not wait for.
        from vastai import VastAI

        self._key = key
        self._sdk = VastAI(api_key=key, server_url=url.rstrip("/"), retry=1, quiet=True)
        self._sdk.client.timeout = TIMEOUT_SECONDS
        self.pace = Pace({name: seconds * MARGIN for name, seconds in SPACING.items()})

    def search(self, query: Mapping[str, Any], *, spot: bool, disk_gb: float) -> list[Row]:
        """The market: offers that meet the query, the cheapest first, priced with the disk."""
        found = self._repeat(
            "search",
            lambda: self._sdk.search_offers(
                query=dict(query),
                type="bid" if spot else "on-demand",
                order="dph_total",
                limit=5000,
                storage=disk_gb,
                no_default=True,
            ),
        )
        return _rows(found, "search for offers")

    def rent(self, offer: int, secrets: Collection[str], **terms: Any) -> int:  # noqa: ANN401
        """Rent an offer; the new machine's id. Asked once, unless Vast.ai asks to wait.

        Raises:
            OfferGoneError: another offer may do.
            LeftBehindError: refused, but there is a machine now.
            UnreachableError: it may have been rented.
        """
        answer = self._repeat(
            "rent",
            lambda: self._sdk.create_instance(id=offer, **terms),
            secrets=secrets,
            once=True,
        )
        id_ = answer.get("new_contract") if isinstance(answer, dict) else None
        if not isinstance(id_, int):
            raise UnreachableError("Vast.ai did not say which machine it has rented: try again")
        return id_

    def machines(self, filters: Mapping[str, Any] | None = None) -> list[Row]:
        """The account's machines, to the last page.

        Raises:
            UnreachableError: a page did not come, or is none: nothing is known of the machines.
        """
        rows: list[Row] = []
        query: dict[str, Any] = {
            "select_filters": dict(filters or {}),
            "order_by": [{"col": "id", "dir": "asc"}],
            "limit": PAGE,
        }
        for _ in range(PAGES):
            page = self._repeat("list", partial(self._sdk.show_instances_v1, dict(query)))
            rows += _rows(page.get("instances") if isinstance(page, dict) else None, "list")
            token = page.get("next_token")
            if not token:
                return rows
            if token == query.get("after_token"):
                break
            query["after_token"] = token
        raise UnreachableError("Vast.ai's list of machines does not end: try again")

    def destroy(self, id_: int) -> None:
        """End a machine; one that is gone already is fine."""
        try:
            self._repeat("destroy", lambda: self._sdk.destroy_instance(id_))
        except RefusedError as error:
            if not NO_SUCH_MACHINE.search(str(error)):
                raise

    def credit(self) -> float:
        """What the account holds, in USD."""
        user = self._repeat("user", self._sdk.show_user)
        try:
            return float(user["credit"])
        except (KeyError, TypeError, ValueError):
            raise UnreachableError("Vast.ai did not tell the account's credit: try again") from None

    def _repeat(
        self,
        endpoint: str,
        call: Callable[[], T],
        *,
        secrets: Collection[str] = (),
        once: bool = False,
    ) -> T:
        """The answer, asked for again where that is safe.

        ``once``: not after an answer, or none, that leaves open whether it was done.
        """
        scale = self.pace.scale

        def pause(error: Exception) -> bool | float:
            if not isinstance(error, _LaterError):
                return False
            return True if error.seconds is None else error.seconds * scale

        try:
            for attempt in stamina.retry_context(
                on=pause,
                attempts=TRIES,
                timeout=None,
                wait_initial=0.5 * scale,
                wait_max=8.0 * scale,
                wait_jitter=0.5 * scale,
            ):
                with attempt:
                    self.pace.await_turn(endpoint)
                    return self._attempt(endpoint, call, [self._key, *secrets], once=once)
        except _LaterError as later:
            raise later.outcome from None
        raise AssertionError("a retry ends with an answer or an error")

    def _attempt(
        self, endpoint: str, call: Callable[[], T], secrets: Collection[str], *, once: bool
    ) -> T:
        import requests

        try:
            answer = call()
        except requests.HTTPError as error:
            # `from None` throughout: the SDK's own errors carry the request, and with it the key.
            given: Any = error.response
            self._refuse(endpoint, given.status_code, given.text, given.headers, secrets, once=once)
        except (requests.RequestException, ValueError, LookupError, TypeError) as error:
            reason = UnreachableError(
                f"Vast.ai gave no usable answer to `{endpoint}` ({type(error).__name__}): try again"
            )
            if once:
                raise reason from None
            raise _LaterError(reason, None) from None
        if isinstance(answer, dict) and (answer.get("success") is False or answer.get("error")):
            self._refuse(endpoint, 200, json.dumps(answer), {}, secrets, once=once)
        return answer

    def _refuse(
        self,
        endpoint: str,
        status: int,
        text: str,
        headers: Mapping[str, str],
        secrets: Collection[str],
        *,
        once: bool,
    ) -> NoReturn:
        body = _parsed(text)
        said = _said(body, text, secrets) or str(status)
        error = str(body.get("error", ""))
        if status == 429:
            self._wait_or_give_up(endpoint, error, text, headers)
        if status >= 500:
            reason = UnreachableError(f"Vast.ai answers {status} to `{endpoint}`: try again")
            if once:
                raise reason from None
            raise _LaterError(reason, None) from None
        if status in (401, 403) or error == "auth_error":
            raise BadKeyError(
                f"Vast.ai does not accept {KEY_VARIABLES[0]} ({said}): "
                "make another at https://cloud.vast.ai/manage-keys/"
            ) from None
        if isinstance(left := body.get("new_contract"), int):
            raise LeftBehindError(f"Vast.ai refuses the bid: {said}", left) from None
        if "no_such_ask" in text:
            raise OfferGoneError(f"the offer is gone: {said}; try again") from None
        if status == 402 or NO_CREDIT.search(said):
            raise NoCreditError(
                f"the Vast.ai account cannot pay for this ({said}): add credit, or have its "
                "spending limit raised, at https://cloud.vast.ai/billing/"
            ) from None
        if endpoint == "list":
            # Whatever the reason, nothing is known of the machines.
            raise UnreachableError(
                f"Vast.ai does not list the account's machines ({said}): try again; "
                "if it stays so, update stemfleet"
            ) from None
        raise RefusedError(
            f"Vast.ai refuses `{endpoint}` ({status}): {said}. Change what the group asks for"
        ) from None

    def _wait_or_give_up(
        self, endpoint: str, error: str, text: str, headers: Mapping[str, str]
    ) -> NoReturn:
        reason = RateLimitedError(
            f"Vast.ai goes on asking for patience at `{endpoint}`: wait a minute, then try again"
        )
        if error == "search_quota_exceeded":
            raise RateLimitedError(
                "the account's searches of today are used up: try again after midnight UTC"
            ) from None
        asked = _number(headers.get("Retry-After"))
        if asked is None and (found := THRESHOLD.search(text)):
            asked = _number(found[1])
        wait = SPACING.get(endpoint, 1.0) if asked is None else asked
        if wait > PATIENCE_SECONDS:
            raise reason from None
        self.pace.hold(endpoint, wait)
        raise _LaterError(reason, 0.001) from None  # the turn at the endpoint is what is waited for


def _rows(found: object, what: str) -> list[Row]:
    if not isinstance(found, list) or not all(
        isinstance(row, dict) and isinstance(row.get("id"), int) for row in found
    ):
        raise UnreachableError(f"Vast.ai answered the {what} with something else: try again")
    return found


def _parsed(text: str) -> Row:
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _said(body: Row, text: str, secrets: Collection[str]) -> str:
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
