"""The real separation process, which beside its first task tries what it must not be able to.

It is given as ``separation_command``; what it could do stands in ``findings.json`` beside the
results.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

from stemserve.separation import __main__ as separation
from stemserve.separation.confine import confine
from stemserve.separation.progress import Emit
from stemserve.task import Finished, SeparationTask

PTRACE_SEIZE = 0x4206


def attempt(deed: Callable[[], object]) -> str:
    """What comes of it: ``done``, or the name of the error."""
    try:
        deed()
    except OSError as error:
        return type(error).__name__
    return "done"


def connects(kind: int, family: int, address: tuple[str, int]) -> Callable[[], object]:
    """Sending something to an address."""

    def deed() -> None:
        with socket.socket(family, kind) as one:
            one.settimeout(5)
            one.connect(address)
            one.send(b"hello")

    return deed


def traces_parent() -> None:
    """Taking hold of the parent as a debugger does."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_SEIZE, os.getppid(), None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def probing(perform: Callable[[SeparationTask, Emit], Finished]) -> Callable[..., Finished]:
    """``perform``, behind a look at what can be done beside it."""

    def probe(task: SeparationTask, emit: Emit) -> Finished:
        port = int(os.environ["PROBE_PORT"])
        parent = Path(f"/proc/{os.getppid()}")
        findings = {
            "tcp": attempt(connects(socket.SOCK_STREAM, socket.AF_INET, ("127.0.0.1", port))),
            "tcp6": attempt(connects(socket.SOCK_STREAM, socket.AF_INET6, ("::1", port))),
            "udp": attempt(connects(socket.SOCK_DGRAM, socket.AF_INET, ("127.0.0.1", port))),
            "parent's environment": attempt((parent / "environ").read_bytes),
            "parent's memory": attempt((parent / "mem").open),
            "ptrace": attempt(traces_parent),
            "limits": {
                name: resource.getrlimit(getattr(resource, name))[1]
                for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE")
            },
            "environment": dict(os.environ),
            "niceness": os.nice(0),
        }
        (task.output_dir / "findings.json").write_text(json.dumps(findings))
        return perform(task, emit)

    return probe


def confine_and_hook() -> None:
    """What the process does first, and then `probing` around its work."""
    confine()
    import stemserve.separation.perform as performing

    performing.perform = probing(performing.perform)


if __name__ == "__main__":
    separation.confine = confine_and_hook  # type: ignore[attr-defined]
    separation.main()
