"""Telling a caller's own server that a job is over: signed, and again until it has heard.

After the Standard Webhooks (standardwebhooks.com): the receiver knows by the signature who sent it,
by its timestamp when, and by its id that he has had it before. What is still to be sent is in the
database, so that a restart of the worker loses none. Where it goes is checked as for an input_url.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from urllib.parse import urlsplit

import anyio
from anyio.to_thread import run_sync

from stemserve import clock
from stemserve.errors import DiskFullError, FetchError, NoSuchJobError, RequestError
from stemserve.jobs.jobfiles import JobFiles
from stemserve.jobs.store import Store
from stemserve.jobs.told import told
from stemserve.logs import about
from stemserve.schema import Job
from stemserve.settings import PREFIX_OF_BASE64, Settings, split_tokens

TRIES = 8
PAUSE_S = 2.0
"""After the first try; four times as long after each further one: three hours in all."""

HOOKS_PER_JOB = 8
DERIVED_FROM = b"stemserve webhook"
"""The key of a token is the HMAC-SHA256 of these bytes under it."""

_TIMEOUT_S = 15.0
_AT_ONCE = 8
_LOOK_S = 60.0
_SENT_S = 0.1

_TABLE = """
CREATE TABLE IF NOT EXISTS webhooks (
    hook_id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs (job_id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL DEFAULT 0,
    UNIQUE (job_id, url)
)
"""

_log = logging.getLogger(__name__)


def keys(settings: Settings) -> list[bytes]:
    """What is signed with: of the secret, or else of each token; none where there is neither."""
    if settings.webhook_secret is not None:
        secret = settings.webhook_secret.get_secret_value()
        if secret.startswith(PREFIX_OF_BASE64):
            return [base64.b64decode(secret.removeprefix(PREFIX_OF_BASE64))]
        return [secret.encode()]
    tokens = [] if settings.token is None else split_tokens(settings.token)
    return [hmac.digest(token.encode(), DERIVED_FROM, hashlib.sha256) for token in tokens]


def signed(hook_id: str, body: bytes, signing: list[bytes], at: int) -> dict[str, str]:
    """The headers of a message at ``at``, in seconds since 1970: a signature with each key."""
    content = b".".join((hook_id.encode(), str(at).encode(), body))
    digests = (hmac.digest(key, content, hashlib.sha256) for key in signing)
    return {
        "webhook-id": hook_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in digests),
    }


@dataclass(frozen=True)
class _Hook:
    hook_id: str
    job_id: str
    url: str
    tries: int

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "?"


class Webhooks:
    """What is to be told of the jobs in ``store``."""

    def __init__(self, settings: Settings, store: Store, files: Callable[[str], JobFiles]) -> None:
        self._settings = settings
        self._keys = keys(settings)
        self._store = store
        self._files = files
        self._woken = anyio.Event()
        store.database.add(_TABLE)

    def check(self, url: str) -> None:
        """Raise `RequestError` if this worker cannot sign what it would send there."""
        if not self._keys:
            raise RequestError(
                "webhook_url: this worker has nothing to sign with; give it a token, or"
                " STEMSERVE_WEBHOOK_SECRET."
            )
        if urlsplit(url).username is not None:
            raise RequestError("webhook_url: leave out name and password; the body is signed.")

    def add(self, job_id: str, url: str) -> None:
        """Tell ``url`` of the job's end, once more if it is over; raises `RequestError`."""
        with self._store.database.writing() as db:
            count = db.execute("SELECT count(*) FROM webhooks WHERE job_id = ?", [job_id])
            if count.fetchone()[0] >= HOOKS_PER_JOB:
                raise RequestError(f"webhook_url: {HOOKS_PER_JOB} wait for this job already.")
            db.execute(
                "INSERT INTO webhooks (hook_id, job_id, url) SELECT ?1, job_id, ?3 FROM jobs"
                " WHERE job_id = ?2 ON CONFLICT DO NOTHING",
                [f"msg_{secrets.token_hex(12)}", job_id, url],
            )

    def wake(self) -> None:
        """A job is over; for the event loop's thread alone."""
        self._woken.set()

    async def run(self) -> None:
        """Send what is due until cancelled."""
        while True:
            self._woken = anyio.Event()
            try:
                due, wait_s = await run_sync(self._due)
            except (DiskFullError, sqlite3.Error) as error:
                _log.warning("no webhooks are sent: %s", error)
                due, wait_s = [], _LOOK_S
            if due:
                async with anyio.create_task_group() as group:
                    for hook in due:
                        group.start_soon(self._send, hook)
                continue
            with anyio.move_on_after(wait_s):
                await self._woken.wait()

    async def sent(self) -> None:
        """Return once nothing is due: each that could be sent has been tried."""
        while True:
            due, _ = await run_sync(self._due)
            if not due:
                return
            await anyio.sleep(_SENT_S)

    def _due(self) -> tuple[list[_Hook], float]:
        """Some of those to be sent now; if there are none, in how many seconds to look again."""
        now = clock.now()
        with self._store.database.reading() as db:
            rows = db.execute(
                "SELECT hook_id, job_id, url, tries, due_at FROM webhooks JOIN jobs"
                " USING (job_id) WHERE status IN ('completed', 'failed')"
                " ORDER BY due_at LIMIT ?",
                [_AT_ONCE],
            ).fetchall()
        due = [row for row in rows if row["due_at"] <= now]
        if due:
            return [_Hook(*(row[name] for name in _Hook.__annotations__)) for row in due], 0
        return [], min([_LOOK_S, *(row["due_at"] - now for row in rows)])

    async def _send(self, hook: _Hook) -> None:
        with about(hook.job_id):
            try:
                job = told(await run_sync(self._store.get, hook.job_id))
            except NoSuchJobError:
                return
            fault, final = await self._post(hook, job)
            tries = hook.tries + 1
            if fault is None:
                said = f"webhook to {hook.host}: delivered"
            elif final or tries == TRIES:
                said = f"webhook to {hook.host}: given up after {tries} tries: {fault}"
            else:
                said = f"webhook to {hook.host}: {fault}; try {tries} of {TRIES}"
            again = fault is not None and not final and tries < TRIES
            try:
                await run_sync(self._note, hook, tries if again else None)
                await run_sync(self._files(hook.job_id).log, said)
            except (DiskFullError, OSError, sqlite3.Error) as error:
                _log.warning("%s, and that cannot be noted: %s", said, error)
                await anyio.sleep(PAUSE_S)
            else:
                _log.info("%s", said)

    async def _post(self, hook: _Hook, job: Job) -> tuple[str | None, bool]:
        """What went wrong, None: nothing; and whether another try would be of no use."""
        import httpx  # it would slow every start down

        from stemserve.carrying.fetch import CheckedTransport

        body = job.model_dump_json().encode()
        headers = signed(hook.hook_id, body, self._keys, int(time.time()))
        headers |= {
            "content-type": "application/json",
            "user-agent": f"stemserve/{version('stemfleet')}",
        }
        allowed = self._settings.fetch_allowed
        transport = CheckedTransport(private=self._settings.fetch_private, allowed=allowed)
        try:
            with anyio.fail_after(_TIMEOUT_S):
                async with (
                    httpx.AsyncClient(transport=transport, trust_env=False) as client,
                    client.stream("POST", hook.url, content=body, headers=headers) as answer,
                ):
                    if answer.is_success:
                        return None, True
                    return f"it answers {answer.status_code}", answer.status_code == 410
        except FetchError:
            return "it leads to a private address, where this worker sends nothing", True
        except TimeoutError:
            return f"no answer within {_TIMEOUT_S:g} s", False
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"it cannot be reached ({type(error).__name__})", False
        except Exception:  # noqa: BLE001 - what a stranger answers must not end the worker
            _log.exception("webhook to %s", hook.host)
            return "it cannot be told", False

    def _note(self, hook: _Hook, tries: int | None) -> None:
        """Note another try to come, or that there will be none."""
        with self._store.database.writing() as db:
            if tries is None:
                db.execute("DELETE FROM webhooks WHERE hook_id = ?", [hook.hook_id])
            else:
                due_at = clock.now() + PAUSE_S * 4 ** (tries - 1)
                db.execute(
                    "UPDATE webhooks SET tries = ?, due_at = ? WHERE hook_id = ?",
                    [tries, due_at, hook.hook_id],
                )
