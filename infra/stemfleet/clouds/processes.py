"""What really runs of the workers on this machine, asked of the operating system each time.

There is no record that could go stale, and no bare process id: a process is known by what it was
started with, and is held as a `psutil.Process`, which knows a reused id by its start time.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil

MARK = "STEMFLEET_INSTANCE_DIR"
"""Environment variable of a worker and of all that it starts: the directory of its instance."""

TERM_SECONDS = 5.0
KILL_SECONDS = 5.0
POLL_SECONDS = 0.02


def instance_dir(process: psutil.Process) -> Path | None:
    """The directory of the worker instance that a process belongs to; None for any other process.

    The worker itself names its data directory on its command line; what it started inherited the
    mark, and keeps it when the worker is gone.
    """
    try:
        command = process.cmdline()  # read once: it may end at any time, and then has none
        if _is_workers(command):
            return Path(command[command.index("--data-dir") + 1]).parent
        marked = process.environ().get(MARK)
        return Path(marked) if marked else None
    except (psutil.Error, OSError):
        return None  # ended meanwhile, or another user's


def is_worker(process: psutil.Process) -> bool:
    """Whether this is a worker itself, not something that one has started."""
    try:
        return _is_workers(process.cmdline())
    except psutil.Error:
        return False


def _is_workers(command: list[str]) -> bool:
    return "--socket-fd" in command and "--data-dir" in command[:-1]


def processes_under(root: Path) -> dict[Path, list[psutil.Process]]:
    """All living processes of workers whose directory lies under ``root``, by instance."""
    found: dict[Path, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        directory = instance_dir(process)
        if directory is not None and root in directory.parents:
            found.setdefault(directory, []).append(process)
    return found


def end_all_under(root: Path) -> list[psutil.Process]:
    """End every process of workers under ``root``: asked first, then forced.

    Returns those that are left, which is none unless the operating system refuses.
    """
    for process in _living(root):
        _signal(process, force=False)
    deadline = time.monotonic() + TERM_SECONDS
    # Listed anew each time: a process may start another while it is asked to end, and one that
    # has ended but that nobody has collected yet must not be waited for.
    while (left := _living(root)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    deadline = time.monotonic() + KILL_SECONDS
    while left and time.monotonic() < deadline:
        for process in left:
            _signal(process, force=True)
        time.sleep(POLL_SECONDS)
        left = _living(root)
    return left


def _living(root: Path) -> list[psutil.Process]:
    return [process for group in processes_under(root).values() for process in group]


def _signal(process: psutil.Process, *, force: bool) -> None:
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except psutil.Error:
        pass  # gone meanwhile; what is left is listed again
