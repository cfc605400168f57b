"""The worker's own log: lines for people, or JSON for machines; nothing secret in either.

What belongs to a job says so, by its id. Of a URL the part behind ``?`` is left out, which holds
signatures as a rule, and so are names and passwords in it; the worker's secrets are blotted out
wherever they turn up.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from stemserve.settings import LogFormat

_FIELDS = ("seconds",)
"""What a record may hold beside its message."""

_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?#'\"<>]*)[?#][^\s'\"<>]*", re.IGNORECASE)
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/?#@'\"<>]*@", re.IGNORECASE)

_job: ContextVar[str | None] = ContextVar("job", default=None)


@contextmanager
def about(job_id: str | None) -> Iterator[None]:
    """What is logged within is about that job."""
    token = _job.set(job_id)
    try:
        yield
    finally:
        _job.reset(token)


def without_secrets(text: str) -> str:
    """A text with nothing of its URLs that could open anything."""
    return _USER.sub(r"\1", _QUERY.sub(r"\1?…", text))


def configure(form: LogFormat, secrets: Iterable[str]) -> None:
    """Write all that is logged to standard error in that form, without the ``secrets``."""
    handler = logging.StreamHandler()
    handler.setFormatter((_Json if form is LogFormat.JSON else _Text)(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole URLs, secrets and all


class _Text(logging.Formatter):
    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """The record in a line, and what went wrong in more."""
        text = super().format(record)
        job_id = _job.get()
        return self._clean(text if job_id is None or job_id in text else f"{text} (job {job_id})")

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return without_secrets(text)


class _Json(_Text):
    def format(self, record: logging.LogRecord) -> str:
        """The record as one JSON object on one line."""
        said: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._clean(record.getMessage()),
        }
        if (job_id := _job.get()) is not None:
            said["job_id"] = job_id
        said |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            said["exception"] = self._clean(self.formatException(record.exc_info))
        return json.dumps(said, ensure_ascii=False)
