"""A hidden folder in the output folder, for what is on its way to its place.

It is locked while its run lives, so that the next run can clear away what a killed one left. Parts
of long tracks are taken over instead: what is finished of them is not computed again.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from stemctl.errors import InputError
from stemctl.lock import take_lock
from stemctl.places.bucket import bucket_of, kept_in, shown
from stemctl.places.outputs import STAGING_PREFIX, cannot_write

LOCK = "lock"
PARTS = "parts"


class Staging:
    """The folder, as a context manager; gone when the run ends, unless there are parts in it."""

    def __init__(self, out: Path) -> None:
        """``out`` is the output folder; for a bucket, the one that holds its ledger is taken."""
        self.bucket = bucket_of(out)
        self.shown = shown(out)
        self.out = kept_in(out)
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            InputError: the output folder cannot be made or written.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for _ in range(3):
                self.folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.out))
                self._lock = take_lock(self.folder / LOCK)
                if self._lock:
                    break  # else another run has just taken it for what a killed one left
            (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
            for lock in self.out.glob(f"{STAGING_PREFIX}*/{LOCK}"):
                if lock.parent != self.folder and (left := take_lock(lock)):
                    self._take_over(lock.parent)
                    left.close()
        except OSError as error:
            raise InputError(cannot_write(error, self.out)) from error
        return self

    def _take_over(self, left: Path) -> None:
        for part in (left / PARTS).glob("*"):
            if not (mine := self.folder / PARTS / part.name).exists():
                part.rename(mine)
        shutil.rmtree(left, ignore_errors=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        parts = self.folder / PARTS
        for path in self.folder.iterdir():
            if path.is_dir() and path != parts:
                shutil.rmtree(path, ignore_errors=True)
        if not any(parts.glob("*/*-*")):
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock:
            self._lock.close()

    @property
    def kept(self) -> int:
        """Of how many tracks there are parts, for the next run to go on with."""
        return len({part.parent for part in (self.folder / PARTS).glob("*/[0-9]*-*")})

    def track(self, name: str) -> Path:
        """A fresh folder for one track; it blocks, and may raise OSError."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def parts(self, key: str) -> Path:
        """Where the parts of a track lie, if there are any."""
        return self.folder / PARTS / key


def is_live(folder: Path) -> bool:
    """Whether the run that a staging folder belongs to is still going on."""
    if not (folder / LOCK).is_file():
        return False
    lock = take_lock(folder / LOCK)
    if lock is not None:
        lock.close()
    return lock is None
