"""The directory in which results grow, and how they come to their place for good."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stemserve.errors import DeviceLostError, DiskFullError
from stemserve.files import sync_folder
from stemserve.separation.device import is_device_lost
from stemserve.task import PARTIAL

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def partial_directory(output: Path, *, kept: bool) -> Iterator[Path]:
    """A directory beside the results' place. Afterwards it is gone, unless it is ``kept``, or the
    process was stopped or lost its device: then another one goes on there.
    """
    partial = output / PARTIAL
    try:
        partial.mkdir(parents=True, exist_ok=True)
        sync_folder(output)
        sync_folder(output.parent)
        yield partial
    except BrokenPipeError:  # nobody listens any more
        raise
    except Exception as error:
        if is_device_lost(error):
            raise DeviceLostError(f"The GPU failed: {error}") from error
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise DiskFullError(
                "The worker has no room left for the results. "
                "Delete finished jobs or give it a larger disk, and try again."
            ) from error
        raise
    else:
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)


def put(path: Path, place: Path) -> None:
    """Let a file be found at its place. It stays where it was as well, if the disk knows links:
    what is ended there is ended for whoever has to begin again.
    """
    new = place.with_name(f".new-{place.name}")
    new.unlink(missing_ok=True)
    try:
        new.hardlink_to(path)
    except OSError:
        path.replace(place)
    else:
        new.replace(place)


def sealed(path: Path) -> str:
    """The digest of a file that would survive a loss of power."""
    with path.open("rb") as content:
        os.fsync(content.fileno())
    return digest_of(path)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
