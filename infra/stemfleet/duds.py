"""Physical machines that have failed, remembered for a day by all stacks of this user.

A machine that could not start a worker today will not start the next one either, and on a market
of the cheapest first it would be the next one's choice. What is remembered saves time and money,
no more: where the file cannot be read or written, nothing is remembered.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

REMEMBERED_SECONDS = 24 * 3600.0

Failures = dict[str, dict[str, float]]
"""By cloud and host: when it failed, in seconds of `time.time`."""


def remember(cloud: str, host: str) -> None:
    """Avoid this machine of the cloud for a day."""
    with suppress(OSError), _locked() as file:
        failures = _recent(file)
        failures.setdefault(cloud, {})[host] = time.time()
        beside = file.with_suffix(".new")
        beside.write_text(json.dumps(failures, indent=1))
        beside.replace(file)


def remembered(cloud: str) -> frozenset[str]:
    """The machines of the cloud that have failed within the last day."""
    return frozenset(_recent(_file()).get(cloud, ()))


def _file() -> Path:
    return platformdirs.user_state_path("stemfleet") / "duds.json"


def _recent(file: Path) -> Failures:
    oldest = time.time() - REMEMBERED_SECONDS
    try:
        known = json.loads(file.read_text())
        return {
            cloud: {host: float(at) for host, at in hosts.items() if float(at) > oldest}
            for cloud, hosts in known.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


@contextmanager
def _locked() -> Iterator[Path]:
    """The file, held against every other process and thread that would write it."""
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield file
