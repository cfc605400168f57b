"""The separation process's conversation: a task as a JSON line in, events as JSON lines out.

Standard input says whether anybody wants the work: its end is the parent's wish that the process
ends, or the parent's death, and stops a task in mid-way. So whoever drives the process keeps its
standard input open until the task's last event has come.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import BinaryIO

from pydantic import ValidationError

from stemserve.errors import DeviceLostError, StemserveError
from stemserve.separation.preload import started
from stemserve.task import PRELOAD_VARIABLE, Event, Failed, SeparationTask

_QUEUE_LIMIT = 16
_GRACE_SECONDS = 2.0
"""How long a task in mid-way may take to clean up behind itself, once nobody wants it."""


class _Unwanted(BaseException):
    """Standard input has ended during a task. No error of the task's: nothing may catch it."""


def run(tasks: BinaryIO, events: BinaryIO) -> None:
    """Serve tasks, one at a time, until ``tasks`` ends or nobody reads ``events``.

    Raises:
        DeviceLostError: the GPU failed.
    """
    unwanted = threading.Event()

    def emit(event: Event) -> None:
        if unwanted.is_set():
            raise _Unwanted
        events.write(event.model_dump_json().encode() + b"\n")
        events.flush()

    lines: queue.Queue[bytes] = queue.Queue(_QUEUE_LIMIT)
    threading.Thread(target=_read, args=(tasks, lines, unwanted), daemon=True).start()
    try:
        emit(started(os.environ.get(PRELOAD_VARIABLE)))
        from stemserve.separation import perform  # heavy, and needed from here on

        del perform
        while line := lines.get():
            emit(_outcome(line, emit))
    except (_Unwanted, BrokenPipeError):
        return


def _outcome(line: bytes, emit: Callable[[Event], None]) -> Event:
    """A task's last event. What goes wrong unexpectedly is told in full on standard error only."""
    from stemserve.separation.perform import perform

    try:
        return perform(SeparationTask.model_validate_json(line), emit)
    except DeviceLostError:
        raise
    except StemserveError as error:
        return Failed(error=str(error), error_type=error.type)
    except ValidationError as error:
        return Failed(error=f"This is no task: {error}", error_type="bad-task")
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the process must live on and say what happened
        traceback.print_exc(file=sys.stderr)
        return Failed(
            error=f"The separation failed unexpectedly ({type(error).__name__}: {error}). "
            "The worker's log has the details.",
            error_type="internal",
        )


def _read(tasks: BinaryIO, lines: queue.Queue[bytes], unwanted: threading.Event) -> None:
    for line in tasks:
        if line.strip():
            lines.put(line)
    unwanted.set()
    timer = threading.Timer(_GRACE_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()
    lines.put(b"")
