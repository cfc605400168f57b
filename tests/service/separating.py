"""A real separation process, driven over its pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter
from stemserve.task import Event, Failed, Finished, SeparationTask, Started

EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
DEADLINE_SECONDS = 250
MODULE_SECONDS = 1800
"""Of a process that serves all tests of a module."""


class SeparationProcess:
    """The process and what it said first."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        first = self.next()
        assert isinstance(first, Started)
        self.started = first

    def next(self) -> Event:
        """Its next event."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the process ended without a word"
        return EVENTS.validate_json(line)

    def send(self, task: SeparationTask) -> None:
        """Give it a task."""
        self.send_line(task.model_dump_json())

    def send_line(self, line: str) -> None:
        """Write a line to it."""
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def events(self) -> list[Event]:
        """Its events up to a task's last."""
        seen = [self.next()]
        while not isinstance(seen[-1], Finished | Failed):
            seen.append(self.next())
        return seen

    def outcome(self, task: SeparationTask) -> Finished | Failed:
        """Give it a task and wait for its end."""
        self.send(task)
        last = self.events()[-1]
        assert isinstance(last, Finished | Failed)
        return last


@contextmanager
def separation_process(
    largest_file: int | None = None,
    deadline_s: float = DEADLINE_SECONDS,
    fates: Collection[int] = (0,),
    module: str = "stemserve.separation",
    **environment: str,
) -> Iterator[SeparationProcess]:
    """A running process, which must end by itself when its input does.

    Args:
        largest_file: the kernel refuses to make a file larger than so many bytes.
        deadline_s: it is killed after so long, whatever it does.
        fates: the exit codes that it may have in the end.
        module: what runs; `tests.service.halting` for one that halts in its third segment.
        environment: more variables.
    """
    command = [sys.executable, "-m", module]
    if largest_file is not None:
        limits = (largest_file, largest_file)
        script = (
            "import os, resource, sys\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, {limits})\n"
            "os.execv(sys.executable, sys.argv[1:])"
        )
        command = [sys.executable, "-c", script, *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | environment,
    )
    watchdog = threading.Timer(deadline_s, process.kill)
    watchdog.start()
    try:
        yield SeparationProcess(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(DEADLINE_SECONDS) in fates
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def task(input_path: Path, output_dir: Path, /, **changes: object) -> SeparationTask:
    """A task for ``center``, with changes."""
    fields = {
        "job_id": "job",
        "input_path": str(input_path),
        "output_dir": str(output_dir),
        "preset": "center",
        "stems": ["vocals", "instrumental"],
    }
    return SeparationTask.model_validate_json(json.dumps(fields | changes))
