"""The worker's folder: one owner at a time, and files that are there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from stemserve.errors import DiskFullError

DISK_FULL = "The worker's disk is full; delete jobs or give it a larger disk."


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` in one step, over what is there."""
    with new_file(path.parent) as (file, temporary):
        file.write(data)
        file.close()
        temporary.replace(path)


@contextmanager
def new_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in ``folder``, open for writing; gone at the end unless it was moved away.

    Raises:
        DiskFullError: there was no room for it.
    """
    with full_disk_told():
        descriptor, name = tempfile.mkstemp(prefix=".new-", dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file, Path(name)
        finally:
            with suppress(FileNotFoundError):
                Path(name).unlink()


def synced(file: BinaryIO) -> None:
    """Close a file that was written; its content would survive a loss of power."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def moved_in(path: Path, place: Path) -> None:
    """Move a file to its place, over what is there, for good."""
    path.replace(place)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Make what the folder lists survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Turn what the system says when a disk or a quota is full into `DiskFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(DISK_FULL) from error
        raise


def lock(path: Path) -> BinaryIO | None:
    """The file at ``path``, locked for as long as it or a copy of its descriptor stays open.

    None when another process holds it.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
