"""`demucs-separate`: the container's command, one input to one folder, as the template had it.

Its flags, files and words are the template's (progress.txt, demucs.log, instrumental.mp3). What is
not on the command line comes from the environment, as for the worker: ``STEMSERVE_PRESET`` above
all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from stemserve.errors import DiskFullError, StemserveError, StoppedError
from stemserve.jobs.jobfiles import PROGRESS, JobFiles
from stemserve.schema import Details, JobState, Progress, Tasks
from stemserve.settings import ENV_PREFIX, Settings
from stemserve.task import Advanced, Logged

FAILED = 1
_STOPPED_BY_SIGNAL = 128


@dataclass
class Run:
    """One run of the command, as its folder tells it."""

    files: JobFiles
    tasks: Tasks = field(default_factory=Tasks)
    details: Details = field(default_factory=Details)
    _began: float = field(default_factory=time.monotonic)

    def log(self, line: str) -> None:
        """Say a line, and keep it in demucs.log as long as there is room."""
        print(line, flush=True)
        with suppress(OSError):
            self.files.log(line)

    def note(self, event: Advanced | Logged) -> None:
        """Write down what the separation said."""
        if isinstance(event, Logged):
            self.log(event.line)
            return
        self.tasks, self.details = event.tasks, event.details
        with suppress(OSError, DiskFullError):  # the separation will meet it too, and clean up
            self.show(JobState.DEMUCS)

    def show(self, state: JobState, error: str | None = None) -> None:
        """Replace progress.txt."""
        self.files.write_progress(
            Progress(
                state=state,
                tasks=self.tasks,
                timestamp=datetime.now(UTC),
                elapsed_seconds=time.monotonic() - self._began,
                details=self.details,
                error=error,
            )
        )
        (self.files.folder / PROGRESS).chmod(0o644)  # read by whoever waits outside the container


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    input: str
    interval_cut: str | None
    all_stems: bool
    chunk_size: int | None
    strict: bool | None


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"demucs-separate {version('stemfleet')}")
        raise typer.Exit


def separate(
    input: Annotated[  # noqa: A002 (the flag's name)
        str, typer.Option("--input", metavar="URL_OR_PATH", help="What to separate.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where stems, progress and log go.")
    ],
    interval_cut: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS,…", help="Where segments end: 300,600,900. Default: every 300."
        ),
    ] = None,
    all_stems: Annotated[
        bool, typer.Option("--all-stems", help="Every stem of the preset, not two.")
    ] = False,
    chunk_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="SAMPLES", help="As the template's: a bound on memory."),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="Fail over a damaged input, or take what can be decoded. "
            "Default: STEMSERVE_STRICT.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Separate one input into DIR: the stems, instrumental.mp3, progress.txt and demucs.log.

    The preset is that of STEMSERVE_PRESET. Exit code 0: the stems are there; 1: not, and
    progress.txt says why.
    """
    del version
    run = Run(JobFiles(output))
    try:
        output.mkdir(parents=True, exist_ok=True)
        alone = os.open(output, os.O_RDONLY)  # held until the end of the process
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.show(JobState.IDLE)
    except BlockingIOError:
        print(f"demucs-separate: another run is at work in {output}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    except (OSError, StemserveError) as error:
        print(f"demucs-separate: {output} cannot be written to: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    try:
        _separate(run, Asked(input, interval_cut, all_stems, chunk_size, strict))
    except (OSError, StemserveError) as error:
        run.log(f"failed: {error}")
        with suppress(OSError, DiskFullError):
            run.show(JobState.ERROR, str(error))
        print(f"demucs-separate: {error}", file=sys.stderr)
        code = _STOPPED_BY_SIGNAL + error.number if isinstance(error, StoppedError) else FAILED
        raise typer.Exit(code) from None


def _separate(run: Run, asked: Asked) -> None:
    from stemserve.direct import (
        SCRATCH,
        content_of,
        input_name,
        input_path,
        open_separation,
        run_until_signal,
        scratch,
    )

    settings = Settings.load()

    async def work() -> None:
        folder = run.files.folder.absolute()
        async with open_separation(settings, run.log) as separation:
            content = content_of(
                await separation.presets(),
                settings,
                interval_cut=asked.interval_cut,
                all_stems=asked.all_stems,
                strict=asked.strict,
            )
            with scratch(folder) as fetched:
                run.log(f"separating with {content.preset} on {await separation.device()}")
                path = await input_path(asked.input, settings, fetched)
                task = content.task("container", path, folder, input_name=input_name(asked.input))
                await separation.run(task, run.note)

    if asked.chunk_size is not None:
        os.environ[f"{ENV_PREFIX}CHUNK_SIZE"] = str(asked.chunk_size)  # read where networks run
        run.log(
            f"--chunk-size {asked.chunk_size}: no more samples than that go through a network at "
            "once, yet one window at least; the result is the same"
        )
    for left in run.files.folder.glob(f"{SCRATCH}*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    run.show(JobState.DEMUCS)
    run_until_signal(work)
    run.show(JobState.COMPLETED)
    run.log("completed")


def main() -> None:
    """The console script."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(separate)
    app()


if __name__ == "__main__":
    main()
