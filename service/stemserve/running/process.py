"""The separation process as the worker's API sees it: tasks in, events out, and it may die.

It speaks JSON lines (`stemserve.task`). Whatever else it or its libraries say is chatter, which is
kept for people and never taken for an event.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import anyio
from anyio.abc import Process, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import TypeAdapter, ValidationError

from stemserve.errors import SeparationDiedError
from stemserve.settings import Settings, is_secret
from stemserve.task import (
    DEVICE_LOST,
    PRELOAD_VARIABLE,
    Event,
    Failed,
    Finished,
    SeparationTask,
    Started,
)
from stemserve.weights.policy import LICENCE_VARIABLE

LINE_LIMIT = 2**20
"""Bytes; a longer line is no event, and no chatter that anyone would read."""

ATTEMPTS = 3
"""How often the process may die over one input."""

EVENT: TypeAdapter[Event] = TypeAdapter(Event)


class SeparationProcess:
    """A separation process that is up. `start` makes one; `kill` ends it whatever it does."""

    def __init__(self, process: Process, chatter: Callable[[str], None]) -> None:
        assert process.stdout is not None  # noqa: S101 (started with pipes)
        self._process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._chatter = chatter
        self.busy = False
        """Whether it has a task whose end it has not told yet."""
        self.started = Started(device="", presets=[])

    @classmethod
    async def start(
        cls,
        settings: Settings,
        group: TaskGroup,
        chatter: Callable[[str], None],
        lock_fd: int | None = None,
        *,
        preload: str | None = None,
    ) -> Self:
        """Start the process and wait until it is up.

        Args:
            settings: Say what starts it, by when it must be up, and which licences it refuses.
            group: Where its standard error is read until it ends.
            chatter: Is given each line that is no event.
            lock_fd: A descriptor that stays open until the process is gone.
            preload: A preset that is loaded before the process counts as up.

        Raises:
            SeparationDiedError: it could not be started, or did not come up.
        """
        environment = {k: v for k, v in os.environ.items() if not is_secret(k)}
        environment[LICENCE_VARIABLE] = settings.licence
        if preload is not None:
            environment[PRELOAD_VARIABLE] = preload
        command = settings.separation_command
        try:
            process = await anyio.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=[] if lock_fd is None else [lock_fd],
            )
        except OSError as error:
            raise SeparationDiedError(f"{command[0]} cannot be started: {error}.") from error
        self = cls(process, chatter)
        group.start_soon(self._read_chatter)
        try:
            event = await self.event(settings.start_timeout)
            if not isinstance(event, Started):
                raise SeparationDiedError("The separation process did not begin with its presets.")
        except BaseException:
            await self.kill()
            raise
        self.started = event
        return self

    async def send(self, task: SeparationTask) -> None:
        """Give the process its next task; raises `SeparationDiedError`."""
        assert self._process.stdin is not None  # noqa: S101 (started with pipes)
        self.busy = True
        try:
            await self._process.stdin.send(task.model_dump_json().encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            raise SeparationDiedError(await self.last_words()) from None

    async def event(self, limit_s: float) -> Event:
        """The next event; raises `SeparationDiedError` if none comes within ``limit_s`` seconds."""
        try:
            with anyio.fail_after(limit_s):
                while True:
                    line = await self._lines.receive_until(b"\n", LINE_LIMIT)
                    try:
                        event = EVENT.validate_json(line)
                    except ValidationError:
                        self._chatter(line.decode(errors="replace"))
                        continue
                    if isinstance(event, Finished | Failed):
                        self.busy = False
                    return event
        except TimeoutError:
            reason = f"The separation process said nothing for {limit_s:g} s."
        except anyio.DelimiterNotFound:
            reason = f"The separation process wrote a line of more than {LINE_LIMIT} bytes."
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            reason = await self.last_words()
        raise SeparationDiedError(reason)

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self._process.returncode is not None

    async def wait(self) -> None:
        """Return once the process has ended."""
        await self._process.wait()

    async def kill(self) -> None:
        """End the process, whatever it does. Results appear whole, so none is half there."""
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.aclose()

    async def last_words(self) -> str:
        """How it ended, once its output has."""
        with anyio.move_on_after(2):
            await self._process.wait()
        code = self._process.returncode
        if code is None:
            return "The separation process closed its output."
        if code == DEVICE_LOST:
            return "The separation process lost its GPU."
        if code == -signal.SIGKILL:
            return (
                "The separation process was ended by SIGKILL, as the system does when memory runs"
                " out."
            )
        if code < 0:
            return f"The separation process was ended by {signal.Signals(-code).name}."
        return f"The separation process ended with exit code {code}."

    async def _read_chatter(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 (started with pipes)
        lines = BufferedByteReceiveStream(self._process.stderr)
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                try:
                    line = await lines.receive_until(b"\n", LINE_LIMIT)
                except anyio.IncompleteRead:
                    line = lines.buffer
                    if line:
                        self._chatter(line.decode(errors="replace"))
                    return
                except anyio.DelimiterNotFound:
                    line = await lines.receive(LINE_LIMIT)
                self._chatter(line.decode(errors="replace").rstrip("\r"))
