"""What is in the output folder, and how stems get there: a whole track at once, or not at all.

Beside the stems of a track lies `RECORD`: which input they are of and what was asked. By it the
next run knows what is done, and what at that place is not its own and must be left alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from stemserve.schema import ResultFile

from stemctl.errors import InputError
from stemctl.wanted import Wanted

RECORD = ".stemctl.json"
STAGING_PREFIX = ".stemctl-"
LOCK = "lock"


class Origin(BaseModel):
    """Which input it was: by content, and for a file by what tells quickly that it is the same."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    """Of the file's bytes; of the URL's text, which may hold a secret, where there is no file."""
    size: int | None = None
    mtime_ns: int | None = None


class Record(BaseModel):
    """What lies beside the stems of a track."""

    model_config = ConfigDict(frozen=True)

    wanted: Wanted
    origin: Origin
    files: tuple[ResultFile, ...]


def is_done(
    place: Path, path: Path | None, url: str | None, wanted: Wanted, *, overwrite: bool
) -> bool:
    """Whether all that is wanted of an input is at its place; False: it can be put there.

    Blocks: it may have to read the input.

    Raises:
        InputError: something else is there, and would be lost; or ``overwrite`` would not help.
    """
    _see_way(place)
    if not os.path.lexists(place):
        return False
    if not place.is_dir():
        raise InputError(f"{place} is in the way: move it, or choose another --out")
    record = read_record(place)
    if record and record.wanted == wanted and _is_of(record.origin, path, url):
        sizes = [_size(place / file.name) for file in record.files]
        if sizes == [file.size for file in record.files]:
            return True
        intact = all(
            size in (None, file.size) for size, file in zip(sizes, record.files, strict=True)
        )
        reason = "holds stems that were changed since"
    elif record:
        intact = False
        other = record.wanted != wanted
        reason = f"holds {record.wanted}" if other else "holds the stems of another input"
    else:
        intact = not any(not entry.is_dir() for entry in os.scandir(place))
        reason = "holds files that are not stemctl's"
    if not intact and not overwrite:
        raise InputError(f"{place} {reason}: choose another --out, or --overwrite")
    return False


def _see_way(place: Path) -> None:
    for above in place.parents:
        if above.is_dir():
            return
        if os.path.lexists(above):
            raise InputError(f"{above} is in the way: move it, or choose another --out")


def _is_of(origin: Origin, path: Path | None, url: str | None) -> bool:
    if path is None:
        return origin == url_origin(url or "")
    about = path.stat()
    if about.st_size != origin.size:
        return False
    return about.st_mtime_ns == origin.mtime_ns or file_origin(path).sha256 == origin.sha256


def url_origin(url: str) -> Origin:
    """The origin of what a worker fetches itself."""
    return Origin(sha256=hashlib.sha256(url.encode()).hexdigest())


def file_origin(path: Path) -> Origin:
    """The origin of a file; reads all of it, in constant memory.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256")
    return Origin(sha256=digest.hexdigest(), size=about.st_size, mtime_ns=about.st_mtime_ns)


def read_record(place: Path) -> Record | None:
    """What was put at a place; None where it was not stemctl, or cannot be told any more."""
    try:
        return Record.model_validate_json((place / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def put_in_place(staged: Path, place: Path, record: Record) -> None:
    """Move a staged track to its place: in one step if nothing is there, else file by file.

    In the second case the record comes last: a run that is cut short there is seen as such.

    Raises:
        OSError: the disk is full, or the place cannot be written.
    """
    (staged / RECORD).write_text(json.dumps(record.model_dump(mode="json"), indent=1))
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) or not place.is_dir():
            raise
    else:
        return
    before = read_record(place)
    new = record.wanted.file_names
    for name in new:
        (staged / name).replace(place / name)
    for name in before.wanted.file_names if before else ():
        if name not in new:
            (place / name).unlink(missing_ok=True)
    (staged / RECORD).replace(place / RECORD)
    staged.rmdir()


class Staging:
    """A hidden folder in the output folder for what is on its way; gone when the run ends.

    It is locked while the run lives, so that the next run can clear away what a killed one left.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            InputError: the output folder cannot be made or written.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for lock in self.out.glob(f"{STAGING_PREFIX}*/{LOCK}"):
                if _locked(lock):
                    shutil.rmtree(lock.parent, ignore_errors=True)
            for _ in range(3):
                self.folder = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.out))
                self._lock = _locked(self.folder / LOCK)
                if self._lock:
                    break  # else another run has just taken it for what a killed one left
        except OSError as error:
            raise InputError(cannot_write(error, self.out)) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock:
            self._lock.close()

    def track(self, name: str) -> Path:
        """A fresh folder for one track; it blocks, and may raise OSError."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def _locked(path: Path) -> IO[bytes] | None:
    """The lock, held until it is closed; None where another process has it, or none can be had."""
    file = path.open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def cannot_write(error: OSError, out: Path) -> str:
    """Why nothing can be written to the output folder, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room left in {out}: free some, then run the same command again"
    return f"{out} cannot be written ({error.strerror}): see its permissions, or choose another"
