"""Vast.ai through its own SDK: paced calls, bounded patience, and its failures in our words.

The SDK is told to try once. It would repeat a rental that got no answer, and each repetition may
be another machine that is paid for; and it takes an error in an answer of status 200 for a result.
What may be repeated is repeated here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import stamina
from stamina.instrumentation import set_on_retry_hooks

from stemfleet.clouds.base import BadKeyError, UnreachableError
from stemfleet.clouds.pace import Pace
from stemfleet.clouds.vast_errors import (
    KEY_VARIABLES,
    SPACING,
    LaterError,
    MachineGoneError,
    no_answer,
    read_failure,
)

Row = dict[str, Any]
T = TypeVar("T")

URL_VARIABLE = "VAST_URL"
"""Where the API is, if not at Vast.ai; the SDK's own variable."""

DEFAULT_URL = "https://console.vast.ai"

MARGIN = 1.02
"""Calls do not arrive as evenly as they leave."""

TIMEOUT_SECONDS = 45.0
"""For one call."""

TRIES = 6
PAGE = 25
PAGES = 1000

set_on_retry_hooks([])  # a retry is no news; what comes of it is


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
        with suppress(MachineGoneError):
            self._repeat("destroy", lambda: self._sdk.destroy_instance(id_))

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
            if not isinstance(error, LaterError) or (once and error.seconds is None):
                return False
            # Where Vast.ai says how long, the turn at the endpoint is what is waited for.
            return True if error.seconds is None else 0.001

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
                    return self._attempt(endpoint, call, [self._key, *secrets])
        except LaterError as later:
            raise later.outcome from None
        raise AssertionError("a retry ends with an answer or an error")

    def _attempt(self, endpoint: str, call: Callable[[], T], secrets: Collection[str]) -> T:
        import requests

        try:
            answer = call()
        except requests.HTTPError as error:
            given: Any = error.response
            failure = read_failure(endpoint, given.status_code, given.text, given.headers, secrets)
        except (requests.RequestException, ValueError, LookupError, TypeError) as error:
            failure = no_answer(endpoint, type(error).__name__)
        else:
            if not isinstance(answer, dict) or (
                answer.get("success") is not False and not answer.get("error")
            ):
                return answer
            failure = read_failure(endpoint, 200, json.dumps(answer), {}, secrets)
        if isinstance(failure, LaterError) and failure.seconds is not None:
            self.pace.hold(endpoint, failure.seconds)
        # Not as a consequence of the SDK's own error: that carries the request, and so the key.
        raise failure from None


def _rows(found: object, what: str) -> list[Row]:
    if not isinstance(found, list) or not all(
        isinstance(row, dict) and isinstance(row.get("id"), int) for row in found
    ):
        raise UnreachableError(f"Vast.ai answered the {what} with something else: try again")
    return found
