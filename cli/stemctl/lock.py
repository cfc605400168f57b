"""A lock that lives as long as the process that has it, so that what a killed one left is found."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def take_lock(path: Path) -> IO[bytes] | None:
    """The lock, held until it is closed; None where another process has it, or none can be had.

    Raises:
        OSError: its file cannot be opened.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
