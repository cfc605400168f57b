"""Separating without the server: a separation process of one's own, given one task after another.

What the commands for one machine have in common. It is the same process, the same tasks and the
same events as behind the server; only the queue, the store and the HTTP are left out.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import anyio
from anyio.abc import TaskGroup
from pydantic import ValidationError

from stemserve.errors import (
    NotAudioError,
    RequestError,
    SeparationDiedError,
    SeparationFailedError,
    StemserveError,
    StoppedError,
)
from stemserve.jobs.job import JobContent, resolve
from stemserve.running.process import ATTEMPTS, SeparationProcess
from stemserve.schema import JobRequest, Preset, StemFormat, file_names
from stemserve.settings import Settings
from stemserve.task import Advanced, Failed, Finished, Logged, SeparationTask

T = TypeVar("T")
Note = Callable[[Advanced | Logged], None]

SCRATCH = ".input-"
"""How the names of the directories of `scratch` begin."""

_NO_DIGEST = "0" * 64
_URLS = ("http://", "https://")


class Separation:
    """A separation process, started again for the next task when it has died over one."""

    def __init__(
        self, settings: Settings, group: TaskGroup, chatter: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._group = group
        self._chatter = chatter
        self._process: SeparationProcess | None = None

    async def presets(self) -> list[Preset]:
        """What it can do; raises `SeparationDiedError`."""
        return (await self._running()).started.presets

    async def device(self) -> str:
        """What it runs on; raises `SeparationDiedError`."""
        return (await self._running()).started.device

    async def run(self, task: SeparationTask, note: Note) -> Finished:
        """Do a task; ``note`` is given its events.

        Where the process dies, it is started again, and goes on behind the last finished segment.

        Raises:
            RequestError: its input would be written over.
            SeparationFailedError: it failed, for the reason that ``type`` names.
            SeparationDiedError: the process ended or was silent for too long, again and again.
        """
        inside = task.input_path.resolve().parent == task.output_dir.resolve()
        names = {*file_names(task.stems, task.format), *file_names(task.stems, StemFormat.MP3)}
        if inside and task.input_path.name in names:
            raise RequestError(
                f"A stem would be written over the input, {task.input_path}. "
                "Name another folder for the stems."
            )
        attempt = 1
        while True:
            try:
                return await self._attempt(task, note)
            except SeparationDiedError as error:
                if attempt == ATTEMPTS:
                    raise SeparationDiedError(
                        f"{error} That happened {ATTEMPTS} times over this input."
                    ) from error
                note(Logged(line=f"attempt {attempt} of {ATTEMPTS}: {error}"))
                attempt += 1

    async def _attempt(self, task: SeparationTask, note: Note) -> Finished:
        process = await self._running()
        try:
            await process.send(task)
            while True:
                event = await process.event(self._settings.stall_timeout)
                if isinstance(event, Finished):
                    return event
                if isinstance(event, Failed):
                    raise SeparationFailedError(event.error, event.error_type)
                if isinstance(event, Advanced | Logged):
                    note(event)
        finally:
            if process.busy:
                await self.close()

    async def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            await self._process.kill()
            self._process = None

    async def _running(self) -> SeparationProcess:
        if self._process is not None and self._process.ended:
            await self.close()
        if self._process is None:
            self._process = await SeparationProcess.start(
                self._settings, self._group, self._chatter
            )
        return self._process


@asynccontextmanager
async def open_separation(
    settings: Settings, chatter: Callable[[str], None]
) -> AsyncIterator[Separation]:
    """A separation process that ends with the block; ``chatter`` is given what is no event."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:
        separation = Separation(settings, group, chatter)
        try:
            yield separation
        except (StemserveError, OSError) as error:  # the group would wrap it
            failure = error
        finally:
            await separation.close()
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


def run_until_signal(work: Callable[[], Awaitable[T]]) -> T:
    """Run ``work`` to its end, or until SIGINT or SIGTERM cancels it.

    Raises:
        StoppedError: a signal came; what ``work`` cleans up is cleaned up.
    """

    async def main() -> T:
        outcome: list[T] = []
        failure: Exception | None = None
        stopped: list[signal.Signals] = []

        async def watch() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for number in signals:
                    stopped.append(number)
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            try:
                outcome.append(await work())
            except (StemserveError, OSError) as error:  # the group would wrap it
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not outcome:
            raise StoppedError(f"Stopped by {stopped[0].name}.", stopped[0])
        return outcome[0]

    return anyio.run(main)


def content_of(presets: list[Preset], settings: Settings, **wishes: object) -> JobContent:
    """What is asked of each input, in the words of a job's request, names checked.

    Raises:
        RequestError: a wish has no meaning.
        UnknownNameError: there is no such preset or stem.
        PresetUnavailableError: this machine lacks what the preset needs.
    """
    given = {name: wish for name, wish in wishes.items() if wish is not None}
    try:
        request = JobRequest.model_validate({"input_sha256": _NO_DIGEST, **given})
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'])} {fault['msg']}".strip().removeprefix(
                "Value error, "
            )
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise RequestError("; ".join(faults)) from None
    return resolve(request, presets, settings.preset, strict=settings.strict)


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A directory in ``place`` for what is fetched, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=place) as path:
        yield Path(path)


def input_name(given: str) -> str:
    """What people call an input: the last part of its path or URL."""
    if given.startswith(_URLS):
        parts = urlsplit(given)
        given = unquote(parts.path.rstrip("/")) or parts.hostname or ""
    return given.rstrip("/").rpartition("/")[2]


async def input_path(given: str, settings: Settings, folder: Path) -> Path:
    """Where an input is on this machine: a file, or a URL, which is fetched to ``folder``.

    Raises:
        FetchError: the URL cannot be fetched, or may not be.
        NotAudioError: there is no such file.
    """
    if given.startswith(_URLS):
        from stemserve.carrying.fetch import fetch
        from stemserve.keeping.inputs import Inputs

        inputs = Inputs(folder, settings.input_limit, settings.keep_free)
        async with aclosing(fetch(given, settings)) as chunks:
            return inputs.path((await inputs.store(chunks)).sha256)
    path = Path(given)
    if not await anyio.Path(path).is_file():
        raise NotAudioError(f"There is no file {given}. Only files and http(s) URLs are separated.")
    return path
