"""What is kept, and for how long: inputs and results go by age and by space, the oldest use first.

Never what a job needs: the input of one that waits or runs, what a running one has made. Results go
whole; the job stays known, says that they are gone, and runs again when it is posted again.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import anyio
from anyio.to_thread import run_sync

from stemserve.errors import StemserveError
from stemserve.jobs.jobfiles import JobFiles
from stemserve.jobs.store import Store
from stemserve.keeping.inputs import Inputs
from stemserve.keeping.kept import KeptJobs
from stemserve.keeping.uses import Uses
from stemserve.schema import JobStatus
from stemserve.settings import Settings

SWEEP_S = 60.0
_DAY_S = 86_400.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Kept:
    name: str
    """As `Uses` knows it."""
    size: int
    used: float
    remove: Callable[[], object]


class Retention:
    """Removes what nobody has used for long. May be called from any thread."""

    def __init__(
        self, settings: Settings, store: Store, inputs: Inputs, files: Callable[[str], JobFiles]
    ) -> None:
        self._settings = settings
        self._jobs = KeptJobs(store)
        self._inputs = inputs
        self._files = files
        self._uses = Uses(store)
        self._lock = threading.RLock()

    @contextmanager
    def removing_nothing(self) -> Iterator[None]:
        """Within, what is there stays there."""
        with self._lock:
            yield

    def use_input(self, sha256: str) -> None:
        """An input is used now; raises `NoSuchInputError` if it is not there (any more)."""
        with self._lock:
            self._inputs.path(sha256)
            self._uses.note(_input(sha256))

    def drop_input(self, sha256: str) -> None:
        """Remove an input that the last job which had it is done with."""
        with self._lock:
            self._remover_of_input(sha256)()

    def use_results(self, job_id: str) -> None:
        """A job's results are used now."""
        self._uses.note(_results(job_id))

    async def run(self) -> None:
        """Sweep, again and again, until cancelled."""
        await run_sync(self._clear_left_overs)
        while True:
            try:
                await run_sync(self.sweep)
            except (StemserveError, OSError, sqlite3.Error) as error:
                _log.warning("what is kept could not be looked through: %s", error)
            await anyio.sleep(SWEEP_S)

    def sweep(self) -> None:
        """Remove what is too old, then what is too much."""
        settings = self._settings
        with self._lock:
            kept = self._kept()
            old = self._uses.now() - (settings.keep_days or 0) * _DAY_S
            if settings.keep_days is not None:
                for one in [one for one in kept if one.used <= old]:
                    self._remove(one, f"nobody used it for {settings.keep_days:g} days")
                    kept.remove(one)
            if settings.keep_bytes is not None:
                self._shrink(kept, sum(one.size for one in kept) - settings.keep_bytes)
            self._free(kept, 0)

    def make_room(self, size: int) -> None:
        """Remove so much that ``size`` bytes fit, if that can be reached; else nothing."""
        with self._lock:
            if self._lacking(size) > 0:
                self._free(self._kept(), size)

    def _free(self, kept: Iterable[_Kept], size: int) -> None:
        removable = self._removable(kept)
        if self._lacking(size) > sum(one.size for one in removable):
            return
        for one in removable:
            if self._lacking(size) <= 0:
                return
            self._remove(one, "the disk is full")

    def _shrink(self, kept: list[_Kept], excess: int) -> None:
        for one in self._removable(kept):
            if excess <= 0:
                return
            excess -= one.size
            self._remove(one, f"more than {self._settings.keep_bytes} bytes are kept")
            kept.remove(one)

    def _removable(self, kept: Iterable[_Kept]) -> list[_Kept]:
        """What may go for want of space, the oldest use first."""
        recent = self._uses.now() - self._settings.keep_least_minutes * 60
        old = (one for one in kept if one.size and one.used <= recent)
        return sorted(old, key=lambda one: one.used)

    def _lacking(self, size: int) -> int:
        """Bytes that would have to become free for ``size`` more."""
        free = shutil.disk_usage(self._settings.data_dir).free
        return size + self._settings.keep_free - free

    def _remove(self, one: _Kept, why: str) -> None:
        try:
            one.remove()
            _log.info("%s is removed: %s", one.name, why)
        except (StemserveError, OSError) as error:
            _log.warning("%s could not be removed: %s", one.name, error)

    def _kept(self) -> list[_Kept]:
        """All that may be removed."""
        needed = self._jobs.inputs_needed()
        inputs = {found.sha256: found.size for found in self._inputs.all()}
        ended = self._jobs.ended()
        uses = self._uses.settle(
            {_input(sha256) for sha256 in inputs} | {_results(job_id) for job_id in ended}
        )
        kept = [
            _Kept(_input(sha256), size, uses[_input(sha256)], self._remover_of_input(sha256))
            for sha256, size in inputs.items()
            if sha256 not in needed
        ]
        kept += [
            _Kept(_results(job_id), size, uses[_results(job_id)], self._remover_of_results(job_id))
            for job_id, size in ended.items()
        ]
        return kept

    def _remover_of_input(self, sha256: str) -> Callable[[], object]:
        def remove() -> None:
            # A job may have been posted since.
            if sha256 not in self._jobs.inputs_needed():
                self._inputs.delete(sha256)

        return remove

    def _remover_of_results(self, job_id: str) -> Callable[[], object]:
        def remove() -> None:
            if self._jobs.let_go(job_id):
                self._files(job_id).delete()
                self._uses.note(_results(job_id))  # it stays known for as long again

        return remove

    def _clear_left_overs(self) -> None:
        """Remove what an end in mid-work left: folders of jobs that have none, unfinished work."""
        with suppress(StemserveError, OSError, sqlite3.Error):
            for folder in (self._settings.data_dir / "jobs").iterdir():
                match self._jobs.status(folder.name):
                    case None:
                        _log.info("%s is removed: no job has it", folder.name)
                        shutil.rmtree(folder, ignore_errors=True)
                    case JobStatus.COMPLETED:
                        self._files(folder.name).let_go()


def _input(sha256: str) -> str:
    return f"input {sha256}"


def _results(job_id: str) -> str:
    return f"job {job_id}"
