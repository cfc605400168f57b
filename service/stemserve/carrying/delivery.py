"""Sends results and segments to where a caller wants them, by PUT to a URL that he has signed.

So stems get into a store of objects without passing through the caller's own line. The URL's query
is as good as a key while it lasts: it is used, and then forgotten; it gets into no log, no answer
and no file. Where a URL may lead is said by `stemserve.carrying.fetch`; redirects are not followed,
for the signature is another server's.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from starlette.concurrency import iterate_in_threadpool

from stemserve.carrying.transfers import AT_ONCE, Transfers
from stemserve.errors import (
    DeliveryError,
    DeliveryRunningError,
    FetchError,
    NoSuchDeliveryError,
    SegmentsGoneError,
    TooManyDeliveriesError,
)
from stemserve.schema import Delivery, DeliveryStatus
from stemserve.settings import Settings

TRIES = 4
PAUSE_S = 0.5
"""Before the second try; doubled before each further one."""

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


@dataclass(frozen=True)
class Cargo:
    """One file to be sent."""

    job_id: str
    name: str
    """As `Delivery.file` has it."""
    size: int
    pieces: Callable[[], Iterator[bytes]]
    """Reads it from its beginning: once for its digests, and once for each try."""


@dataclass
class Sending:
    """One file on its way, or what has become of it."""

    cargo: Cargo
    place: str
    """The URL without what is secret in it."""
    status: DeliveryStatus = DeliveryStatus.SENDING
    sent: int = 0
    md5: str | None = None
    sha256: str | None = None
    error: str | None = None
    given_up: bool = False
    """Its job was deleted: it is not to arrive any more."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status is not DeliveryStatus.SENDING


class Deliveries:
    """The latest deliveries since the worker started. May be used from any thread."""

    def __init__(self) -> None:
        self._sendings = Transfers[tuple[str, str], Sending]()

    def begin(self, cargo: Cargo, url: str) -> Sending | None:
        """A delivery for the caller to `send`; None: that very one is under way.

        Raises:
            DeliveryRunningError: the file is on its way to elsewhere.
            TooManyDeliveriesError: as many as may are under way.
        """
        new = Sending(cargo, _place(url))
        one = self._sendings.begin((cargo.job_id, cargo.name), new)
        if one is None:
            raise TooManyDeliveriesError(f"{AT_ONCE} files are on their way; try again later.")
        if one.place != new.place:
            raise DeliveryRunningError(
                f"{cargo.name} is on its way to another URL; wait for its end."
            )
        return new if one is new else None

    def give_up(self, job_id: str) -> None:
        """Let no file of a job arrive that has not arrived yet."""
        for one in self._sendings.under_way():
            one.given_up |= one.cargo.job_id == job_id

    def find(self, job_id: str, file: str) -> Delivery:
        """How far a delivery is; raises `NoSuchDeliveryError`."""
        one = self._sendings.find((job_id, file))
        if one is None:
            raise NoSuchDeliveryError(
                f"{file} of job {job_id} was not sent anywhere since this worker started; ask for"
                " it by POST to the same address."
            )
        return Delivery(
            file=one.cargo.name,
            status=one.status,
            sent=one.sent,
            size=one.cargo.size,
            md5=one.md5,
            sha256=one.sha256,
            error=one.error,
            error_type=DeliveryError.type if one.error else None,
        )


async def send(delivery: Sending, url: str, settings: Settings) -> None:
    """Send a file, and note how it went; raises nothing that a store may cause."""
    name = delivery.cargo.name
    try:
        with anyio.fail_after(settings.fetch_timeout):
            md5, sha256 = await to_thread.run_sync(_digests, delivery.cargo)
            await _put(delivery, url, settings, md5)
        delivery.md5, delivery.sha256 = md5.hex(), sha256
        delivery.status = DeliveryStatus.DELIVERED
        _log.info("%s is delivered", name)
    except TimeoutError:
        delivery.error = f"The delivery took longer than {settings.fetch_timeout:g} s."
    except OSError as error:
        delivery.error = f"{name} cannot be read: {error.strerror}."
    except (DeliveryError, SegmentsGoneError) as error:
        delivery.error = str(error)
    finally:
        if delivery.status is not DeliveryStatus.DELIVERED:
            delivery.error = delivery.error or "The delivery was cut short; ask for it again."
            delivery.status = DeliveryStatus.FAILED
            _log.warning("%s is not delivered: %s", name, delivery.error)


async def _put(delivery: Sending, url: str, settings: Settings, md5: bytes) -> None:
    import httpx  # its start would slow every start of the worker down

    from stemserve.carrying.fetch import TIMEOUT, CheckedTransport

    suffix = PurePath(delivery.cargo.name).suffix
    headers = {
        "Content-Length": str(delivery.cargo.size),
        "Content-Type": MEDIA_TYPES.get(suffix, "application/octet-stream"),
        "Content-MD5": base64.b64encode(md5).decode(),  # a store refuses what has come otherwise
    }
    transport = CheckedTransport(private=settings.fetch_private, allowed=settings.fetch_allowed)
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=TIMEOUT) as client:
        for attempt in range(TRIES):
            if attempt:
                await anyio.sleep(PAUSE_S * 2 ** (attempt - 1))
            try:
                answer = await client.put(url, content=_pieces(delivery), headers=headers)
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


async def _pieces(delivery: Sending) -> AsyncIterator[bytes]:
    delivery.sent = 0
    async for piece in iterate_in_threadpool(delivery.cargo.pieces()):
        if delivery.given_up:
            raise DeliveryError(f"Job {delivery.cargo.job_id} was deleted.")
        yield piece
        delivery.sent += len(piece)


def _digests(cargo: Cargo) -> tuple[bytes, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for piece in cargo.pieces():
        md5.update(piece)
        sha256.update(piece)
    return md5.digest(), sha256.hexdigest()


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
