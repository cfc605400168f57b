"""RunPod's API over HTTP: one call a method, with bounded patience and typed errors.

REST v2 (https://api.runpod.io/v2, OpenAPI in RunPod's documentation), and GraphQL for what v2
lacks: spot pods, their prices, and the account's balance. A request that makes a pod is sent once:
RunPod knows no idempotency key, so who gets no answer has to look for the pod before he asks again.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NoReturn

import httpx
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
from stemfleet.clouds.pace import Pace, clock_rate

Json = dict[str, Any]

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
PATIENCE_SECONDS = 150.0
"""How long a call is begun again, or waits for its turn: longer than the minute of the tightest of
RunPod's rate limits, shorter than the hour of the next."""

ACCOUNT = "account"
"""RunPod counts all calls of an account together."""

PAGES = 1000
KEY = re.compile(r"[!-~]+")

NO_CAPACITY = re.compile(
    r"no longer any instances available|does not have the resources|enough disk space"
    r"|no (?:gpu|instance|machine)s? (?:is|are )?(?:currently )?available|insufficient capacity"
    r"|out of (?:stock|capacity)|no capacity",
    re.IGNORECASE,
)
"""What tells that a machine lacks from a request that breaks a rule: both are status 400, and
GraphQL tells every error by its text alone."""

NO_CREDIT = re.compile(r"\b(?:balance|credits?|funds|payment|spend(?:ing)? limit)\b", re.IGNORECASE)

set_on_retry_hooks([])  # a retry is no news; what comes of it is


class LostAnswerError(UnreachableError):
    """Whether what was asked for was done is not known."""


class ForbiddenError(CloudError):
    """The key may not do this: for a pod, perhaps not with this kind of GPU alone."""


class _LaterError(Exception):
    """To be tried again, after so many seconds if RunPod says how many."""

    def __init__(self, outcome: CloudError, seconds: float | None = None) -> None:
        super().__init__(str(outcome))
        self.outcome, self.seconds = outcome, seconds


class RunpodApi:
    """RunPod under one key. May be used from many threads, which share what is left of a limit."""

    def __init__(self, url: str, key: str) -> None:
        """``url`` without the version, as in https://api.runpod.io.

        Raises:
            BadKeyError: there is no key, or it is none by its form.
        """
        if not KEY.fullmatch(key):
            raise BadKeyError(
                "RUNPOD_API_KEY holds no RunPod key: create one under Settings, API Keys, "
                "then `export RUNPOD_API_KEY=…`"
            )
        self._key = key
        self._http = httpx.Client(
            base_url=url,
            timeout=TIMEOUT,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "stemfleet"},
            mounts={"all://127.0.0.1": None, "all://localhost": None},
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=32),
        )
        self._rate = clock_rate()
        self.pace = Pace({})
        """What is left of RunPod's limits is known to all threads."""

    def pods(self) -> list[Json]:
        """Every pod of the account, to the last page.

        Raises:
            UnreachableError: a page did not come, or is none.
        """
        pods: list[Json] = []
        query: dict[str, str] = {}
        for _ in range(PAGES):
            page = self._get("/v2/pods", query)
            rows = page.get("pods")
            if not isinstance(rows, list) or not all(
                isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows
            ):
                raise UnreachableError(
                    "RunPod answered a question for the pods with something else: "
                    "nothing is known of them; try again"
                )
            pods += rows
            further = page.get("pagination") or {}
            if not further.get("hasNextPage"):
                return pods
            cursor = further.get("nextCursor")
            if not cursor or cursor == query.get("cursor"):
                break
            query = {"cursor": str(cursor)}
        raise UnreachableError("RunPod's list of pods does not end: try again")

    def pod(self, id_: str) -> Json | None:
        """One pod; None if there is none of that id."""
        answer = self._send("GET", f"/v2/pods/{id_}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._json(answer)

    def create_pod(self, body: Json) -> Json:
        """Rent. Sent once.

        Raises:
            NoCapacityError: none of this kind is free.
            LostAnswerError: it may have been rented.
        """
        secrets = [str(value) for value in body.get("env", {}).values()]
        answer = self._send("POST", "/v2/pods", json=body, once=True, secrets=secrets)
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise _meaning(self._detail(answer, secrets))
        return self._json(answer, LostAnswerError, secrets)

    def terminate_pod(self, id_: str) -> None:
        """End a pod; one that is gone already is fine."""
        answer = self._send("DELETE", f"/v2/pods/{id_}")
        if not answer.is_success and answer.status_code != httpx.codes.NOT_FOUND:
            self._refuse(answer)

    def gpus(self, query: Json) -> list[Json]:
        """The catalog's kinds of GPU, with what of them is free."""
        found = self._get("/v2/catalog/gpus", query).get("gpus")
        if not isinstance(found, list):
            raise UnreachableError("RunPod's catalog of GPUs came back empty: try again")
        return found

    def graphql(self, text: str, variables: Json, *, once: bool = False) -> Json:
        """The data that a query or mutation gives.

        Raises:
            LostAnswerError: ``once``, and it may have been done.
        """
        secrets = [str(one["value"]) for one in variables.get("input", {}).get("env", ())]
        answer = self._send(
            "POST",
            "/graphql",
            json={"query": text, "variables": variables},
            once=once,
            secrets=secrets,
        )
        lost = LostAnswerError if once else UnreachableError
        body = self._json(answer, lost, secrets)
        data, errors = body.get("data"), body.get("errors")
        if errors and not (isinstance(data, dict) and any(data.values())):
            try:
                message = str(errors[0]["message"])
            except (KeyError, TypeError, IndexError):
                raise lost("RunPod refuses a GraphQL request without a reason: try again") from None
            raise _meaning(self._hide(message, secrets))
        if errors or not isinstance(data, dict):
            raise lost("RunPod answered a GraphQL request by half: try again")
        return data

    def _get(self, path: str, query: Json) -> Json:
        return self._json(self._send("GET", path, params=query))

    def _send(
        self,
        method: str,
        path: str,
        *,
        json: Json | None = None,
        params: Json | None = None,
        once: bool = False,
        secrets: Collection[str] = (),
    ) -> httpx.Response:
        """The answer: a success, or 400, 404 or another status that means something to the caller.

        ``once``: it is not sent again after an answer, or none, that leaves open what was done.
        """
        try:
            for attempt in stamina.retry_context(
                on=_pause,
                attempts=None,
                timeout=PATIENCE_SECONDS / self._rate,
                wait_initial=0.5 / self._rate,
                wait_max=10.0 / self._rate,
                wait_jitter=0.5 / self._rate,
            ):
                with attempt:
                    self.pace.await_turn(ACCOUNT)
                    return self._attempt(method, path, json, params, once, secrets)
        except _LaterError as later:
            raise later.outcome from None
        raise AssertionError("a retry ends with an answer or an error")

    def _attempt(
        self,
        method: str,
        path: str,
        json: Json | None,
        params: Json | None,
        once: bool,
        secrets: Collection[str],
    ) -> httpx.Response:
        where = f"{method} {path}"
        try:
            answer = self._http.request(method, path, json=json, params=params)
        except httpx.RequestError as error:
            reason = f"RunPod gave no answer to {where} ({type(error).__name__}): try again"
            sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if once and sent:
                raise LostAnswerError(reason) from None
            raise _LaterError(UnreachableError(reason)) from None
        self._heed(answer)
        status = answer.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS:
            asked = RateLimitedError(
                f"RunPod goes on asking for patience ({where}): "
                "wait until its limit of requests is free again, then try again"
            )
            raise _LaterError(asked, _seconds(answer.headers.get("Retry-After")))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            reason = f"RunPod answers {status} to {where}: try again"
            if once:
                raise LostAnswerError(reason)
            raise _LaterError(UnreachableError(reason))
        if status in (
            httpx.codes.UNAUTHORIZED,
            httpx.codes.PAYMENT_REQUIRED,
            httpx.codes.FORBIDDEN,
            httpx.codes.CONFLICT,
            httpx.codes.GONE,
            httpx.codes.REQUEST_ENTITY_TOO_LARGE,
            httpx.codes.UNPROCESSABLE_ENTITY,
        ):
            self._refuse(answer, secrets)
        if answer.is_redirect:
            raise UnreachableError(f"RunPod answers {status} to {where}: try again")
        return answer

    def _refuse(self, answer: httpx.Response, secrets: Collection[str] = ()) -> NoReturn:
        detail = self._detail(answer, secrets)
        status = answer.status_code
        if status == httpx.codes.UNAUTHORIZED:
            raise BadKeyError(
                f"RunPod does not accept RUNPOD_API_KEY ({detail}): "
                "create another under Settings, API Keys"
            )
        if status == httpx.codes.FORBIDDEN:
            raise ForbiddenError(
                f"RUNPOD_API_KEY may not do this ({detail}): "
                "give it the permission to read and write pods under Settings, API Keys"
            )
        if status == httpx.codes.PAYMENT_REQUIRED:
            raise NoCreditError(_no_credit(detail))
        raise RefusedError(f"RunPod refuses ({status}): {detail}")

    def _json(
        self,
        answer: httpx.Response,
        broken: type[UnreachableError] = UnreachableError,
        secrets: Collection[str] = (),
    ) -> Json:
        if not answer.is_success:
            self._refuse(answer, secrets)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise broken(f"RunPod's answer to {answer.request.url.path} is broken: try again")
        return body

    def _detail(self, answer: httpx.Response, secrets: Collection[str] = ()) -> str:
        """What the answer says, without a secret that the request held."""
        try:
            body = answer.json()
            said = [body.get("detail") or body.get("title"), *(body.get("errors") or ())]
            text = "; ".join(str(one) for one in said if one)
        except (ValueError, AttributeError):
            text = ""
        return self._hide(text, secrets) or str(answer.status_code)

    def _hide(self, text: str, secrets: Collection[str]) -> str:
        for secret in (self._key, *secrets):
            if len(secret) >= 8:
                text = text.replace(secret, "…")
        return text[:500]

    def _heed(self, answer: httpx.Response) -> None:
        """Let the next call of any thread wait until something is left of each limit again."""
        waits = [_seconds(answer.headers.get("Retry-After"))]
        for item in answer.headers.get("RateLimit", "").split(","):
            parts = dict(part.strip().partition("=")[::2] for part in item.split(";")[1:])
            if parts.get("r") == "0":
                waits.append(_seconds(parts.get("t")))
        for seconds in waits:
            if seconds is not None and seconds <= PATIENCE_SECONDS:
                self.pace.hold(ACCOUNT, seconds)


def _pause(error: Exception) -> bool | float:
    """Whether to try again; the pause that RunPod itself asks for is kept by the pace."""
    if not isinstance(error, _LaterError) or error.seconds is None:
        return isinstance(error, _LaterError)
    return 0.01 if error.seconds <= PATIENCE_SECONDS else False


def _meaning(detail: str) -> CloudError:
    """The error behind a text, where the status does not tell one from the other."""
    if NO_CAPACITY.search(detail):
        return NoCapacityError(detail)
    if NO_CREDIT.search(detail):
        return NoCreditError(_no_credit(detail))
    return RefusedError(f"RunPod refuses what the group asks for: {detail}")


def _no_credit(detail: str) -> str:
    return (
        f"the RunPod account cannot pay for this ({detail}): add credit, or raise its limit, "
        "under Billing"
    )


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
