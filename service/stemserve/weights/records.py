"""What was found when a file of weights was last read through, so that it is not read each time.

Beside ``NAME`` lies ``.NAME.verified``: the file's SHA-256, with the size and the time of change it
had then. A file that has either changed is read again. This finds what was cut short, replaced or
copied badly; it is no defence against somebody who may write into the directory.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from stemserve.errors import DiskFullError
from stemserve.files import write_whole

_SECOND = 1_000_000_000


def recorded(path: Path) -> str | None:
    """The SHA-256 of a file that has not changed since it was read; None when it has."""
    record = _read(path)
    found = path.stat()
    if record is None or record.get("size") != found.st_size:
        return None
    then, now = record.get("mtime_ns"), found.st_mtime_ns
    # An image's layers keep whole seconds only.
    if now != then and not (isinstance(then, int) and now == then // _SECOND * _SECOND):
        return None
    return _digest(record)


def last_recorded(path: Path) -> str | None:
    """The SHA-256 that was recorded under this name, whether or not the file has changed since."""
    record = _read(path)
    return None if record is None else _digest(record)


def measure(path: Path) -> str:
    """The SHA-256 of a file, read through."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def record(path: Path, sha256: str, found: os.stat_result) -> None:
    """Write down the SHA-256 of a file that was ``found`` so; where that cannot be, it is not."""
    facts = {"sha256": sha256, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
    with suppress(OSError, DiskFullError):  # a read-only directory: the file is read each time
        write_whole(_place(path), json.dumps(facts).encode())
        _place(path).chmod(0o644)


def forget(path: Path) -> None:
    """Remove the record of a file."""
    _place(path).unlink(missing_ok=True)


def _place(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _digest(record: dict[str, object]) -> str | None:
    sha256 = record.get("sha256")
    return sha256 if isinstance(sha256, str) else None


def _read(path: Path) -> dict[str, object] | None:
    try:
        facts = json.loads(_place(path).read_bytes())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None
