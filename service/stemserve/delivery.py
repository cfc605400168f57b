"""Sends results to where a caller wants them, by PUT to a URL that he has signed.

So stems get into a store of objects without passing through the caller's own line. The URL's query
is as good as a key while it lasts: it is used, and then forgotten; it gets into no log, no answer
and no file. Where a URL may lead is said by `stemserve.fetch`; redirects are not followed, for the
signature is another server's.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from stemserve.errors import (
    DeliveryError,
    DeliveryRunningError,
    FetchError,
    NoSuchDeliveryError,
    TooManyDeliveriesError,
)
from stemserve.schema import Delivery, DeliveryStatus, ResultFile
from stemserve.settings import Settings

AT_ONCE = 16
"""As many results may be on their way."""
KNOWN = 1000
"""Of so many it is known how they went."""
TRIES = 4
PAUSE_S = 0.5
"""Before the second try; doubled before each further one."""
PIECE = 2**20

MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
    ".json": "application/json",
}

_log = logging.getLogger(__name__)


@dataclass
class Sending:
    """One result on its way, or what has become of it."""

    result: ResultFile
    place: str
    """The URL without what is secret in it."""
    status: DeliveryStatus = DeliveryStatus.SENDING
    sent: int = 0
    md5: str | None = None
    error: str | None = None


class Deliveries:
    """The latest deliveries since the worker started. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Sending] = {}

    def begin(self, job_id: str, result: ResultFile, url: str) -> Sending | None:
        """A delivery for the caller to `send`; None: that very one is under way.

        Raises:
            DeliveryRunningError: the result is on its way to elsewhere.
            TooManyDeliveriesError: as many as may are under way.
        """
        key, place = (job_id, result.name), _place(url)
        with self._lock:
            before = self._known.get(key)
            if before is not None and before.status is DeliveryStatus.SENDING:
                if before.place != place:
                    raise DeliveryRunningError(
                        f"{result.name} is on its way to another URL; wait for its end."
                    )
                return None
            ended = [k for k, s in self._known.items() if s.status is not DeliveryStatus.SENDING]
            if len(self._known) - len(ended) >= AT_ONCE:
                raise TooManyDeliveriesError(
                    f"{AT_ONCE} results are on their way; try again later."
                )
            for old in [key, *ended[: len(self._known) - KNOWN + 1]]:
                self._known.pop(old, None)
            self._known[key] = Sending(result, place)
            return self._known[key]

    def find(self, job_id: str, file: str) -> Delivery:
        """How far a delivery is; raises `NoSuchDeliveryError`."""
        with self._lock:
            one = self._known.get((job_id, file))
        if one is None:
            raise NoSuchDeliveryError(
                "That result was not sent anywhere since this worker started; ask for it with"
                f" POST /result/{job_id}/deliver."
            )
        return Delivery(
            file=one.result.name,
            status=one.status,
            sent=one.sent,
            size=one.result.size,
            md5=one.md5,
            error=one.error,
            error_type=DeliveryError.type if one.error else None,
        )


async def send(delivery: Sending, path: Path, url: str, settings: Settings) -> None:
    """Send a result, and note how it went; raises nothing that a store may cause."""
    name = delivery.result.name
    try:
        with anyio.fail_after(settings.fetch_timeout):
            md5 = await to_thread.run_sync(_md5, path)
            await _put(delivery, path, url, settings, md5)
        delivery.md5, delivery.status = md5.hex(), DeliveryStatus.DELIVERED
        _log.info("%s is delivered", name)
    except TimeoutError:
        delivery.error = f"The delivery took longer than {settings.fetch_timeout:g} s."
    except OSError as error:
        delivery.error = f"{name} cannot be read: {error.strerror}."
    except DeliveryError as error:
        delivery.error = str(error)
    finally:
        if delivery.status is not DeliveryStatus.DELIVERED:
            delivery.error = delivery.error or "The delivery was cut short; ask for it again."
            delivery.status = DeliveryStatus.FAILED
            _log.warning("%s is not delivered: %s", name, delivery.error)


async def _put(delivery: Sending, path: Path, url: str, settings: Settings, md5: bytes) -> None:
    import httpx  # its start would slow every start of the worker down

    from stemserve.fetch import TIMEOUT, CheckedTransport

    headers = {
        "Content-Length": str(delivery.result.size),
        "Content-Type": MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        "Content-MD5": base64.b64encode(md5).decode(),  # a store refuses what has come otherwise
    }
    transport = CheckedTransport(private=settings.fetch_private, allowed=settings.fetch_allowed)
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=TIMEOUT) as client:
        for attempt in range(TRIES):
            if attempt:
                await anyio.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                content = _pieces(delivery, path)
                answer = await client.put(url, content=content, headers=headers)
            except FetchError:
                raise DeliveryError(
                    "The url leads to a private address, where this worker sends nothing; its"
                    " operator can allow that network: STEMSERVE_FETCH_ALLOWED."
                ) from None
            except (httpx.TransportError, httpx.InvalidURL) as error:
                why = f"cannot be reached: {str(error) or type(error).__name__}"
            else:
                if answer.is_success:
                    return
                why = f"answers {answer.status_code} {answer.reason_phrase}"
                if answer.status_code < 500 and answer.status_code not in _PASSING:
                    break
    raise DeliveryError(f"The url {why}.")


_PASSING = (408, 429)
"""Statuses below 500 that the next try may not get."""


async def _pieces(delivery: Sending, path: Path) -> AsyncIterator[bytes]:
    delivery.sent = 0
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            yield piece
            delivery.sent += len(piece)


def _md5(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
