"""Inputs that the worker fetches before a job asks for them, each named by its content.

So what lies in a store of objects gets here without passing through the caller's own line. As of a
delivery, the URL is used and then forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from anyio.to_thread import run_sync

from stemserve.carrying.transfers import AT_ONCE, Transfers
from stemserve.errors import NoSuchFetchError, StemserveError, TooManyFetchesError
from stemserve.keeping.inputs import Inputs
from stemserve.keeping.retention import Retention
from stemserve.schema import Fetch, FetchStatus
from stemserve.settings import Settings

_log = logging.getLogger(__name__)


@dataclass
class Fetching:
    """One input on its way, or what has become of it."""

    sha256: str
    status: FetchStatus = FetchStatus.FETCHING
    came: int = 0
    error: str | None = None
    error_type: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status is not FetchStatus.FETCHING

    def failed(self, error: str, error_type: str) -> None:
        """It did not come."""
        self.status, self.error, self.error_type = FetchStatus.FAILED, error, error_type


class Fetches:
    """The latest fetches since the worker started. May be used from any thread."""

    def __init__(self) -> None:
        self._fetchings = Transfers[str, Fetching]()

    def begin(self, sha256: str) -> Fetching | None:
        """A fetch for the caller to `collect`; None: that input is on its way.

        Raises:
            TooManyFetchesError: as many as may are under way.
        """
        one = self._fetchings.begin(sha256, new := Fetching(sha256))
        if one is None:
            raise TooManyFetchesError(f"{AT_ONCE} inputs are being fetched; try again later.")
        return new if one is new else None

    def find(self, sha256: str) -> Fetch:
        """How far a fetch is; raises `NoSuchFetchError`."""
        one = self._fetchings.find(sha256)
        if one is None:
            raise NoSuchFetchError(
                "That input was not fetched from anywhere since this worker started; ask for it"
                f" with POST /inputs/{sha256}/fetch."
            )
        return Fetch(
            sha256=sha256,
            status=one.status,
            size=one.came,
            error=one.error,
            error_type=one.error_type,
        )


async def collect(
    fetching: Fetching, url: str, inputs: Inputs, retention: Retention, settings: Settings
) -> None:
    """Fetch an input, and note how it went; raises nothing that a server may cause."""
    from stemserve.carrying.fetch import fetch  # its HTTP client would slow every start down

    try:
        async with aclosing(fetch(url, settings)) as chunks:
            await inputs.store(_counted(fetching, chunks), fetching.sha256)
        await run_sync(retention.use_input, fetching.sha256)
        fetching.status = FetchStatus.FETCHED
    except StemserveError as error:
        fetching.failed(str(error), error.type)
    finally:
        if fetching.status is FetchStatus.FETCHING:
            fetching.failed("The fetch was cut short; ask for it again.", "fetch-failed")
        if fetching.error:
            _log.warning("input %s is not fetched: %s", fetching.sha256, fetching.error)


async def _counted(fetching: Fetching, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        fetching.came += len(chunk)
        yield chunk
