"""The way of a song from end to end on this machine: a fleet, one song, its stems, no fleet.

Whatever happens in between, a failure or Ctrl-C, the fleet is destroyed.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from stemctl.engine import find_engine
from stemctl.errors import EngineError, InputError

STACK = "dev"
SONG = Path("tests", "sample", "song.flac")
NOTICE_S, PATIENCE_S = 0.5, 5.0
"""How soon Ctrl-C is noticed, and how long a command then gets to end by itself."""

INTERRUPTED = 130
"""The exit code of what Ctrl-C has ended."""


@dataclass
class Demo:
    """What the demo did: the seconds that each step took, and the first step that failed."""

    stems: Path
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str | None = None
    interrupted: bool = False
    destroyed: bool = False


def run_demo(project: Path, out: Path) -> Demo:
    """Make the dev stack's fleet, send it the sample song, destroy it.

    Raises:
        EngineError: there is no engine, or the stack cannot be made.
        InputError: this project has no sample song.
    """
    song = project / SONG
    if not song.is_file():
        raise InputError(f"there is no {song}: run the demo in a checkout of stemfleet")
    engine = find_engine()
    runner = Runner(project, engine.environment())
    pulumi = str(engine.pulumi)
    demo = Demo(stems=out.absolute() / SONG.stem)
    if runner.call([pulumi, "stack", "select", "--create", "--stack", STACK]) != 0:
        raise EngineError(f"the stack {STACK} cannot be made: see what pulumi says above")
    submit = [sys.executable, "-m", "stemctl", "submit", str(song), "--overwrite"]
    steps = {
        "pulumi up": [pulumi, "up", "--yes", "--skip-preview", "--stack", STACK],
        "stemctl submit": [*submit, "--stack", STACK, "--out", str(out)],
    }
    with interrupts_noted(runner):
        for name, command in steps.items():
            code, demo.seconds[name] = runner.step(name, command)
            if code != 0 or runner.interrupted:
                demo.failed = name
                break
        demo.interrupted = runner.interrupted
        name = "pulumi destroy"
        destroy = [pulumi, "destroy", "--yes", "--skip-preview", "--stack", STACK]
        destroy.append("--non-interactive")
        code, demo.seconds[name] = runner.step(name, destroy, shielded=True)
        demo.destroyed = code == 0
    return demo


class Runner:
    """Runs commands in the project, one after another, their output shown (on stderr)."""

    def __init__(self, project: Path, environment: dict[str, str]) -> None:
        self.project = project
        self.environment = environment
        self.interrupted = False

    def step(
        self, name: str, command: Sequence[str], *, shielded: bool = False
    ) -> tuple[int, float]:
        """Say what comes now, and `call` it; the exit code, and the seconds that it took."""
        print(f"\n── {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        code = self.call(command, shielded=shielded)
        return code, time.monotonic() - started

    def call(self, command: Sequence[str], *, shielded: bool = False) -> int:
        """Run to the end; the exit code.

        Ctrl-C reaches the command from the terminal, and it is left the time to end in order.
        ``shielded``: it does not reach it.
        """
        with subprocess.Popen(
            command,
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=shielded,
        ) as process:
            while not (self.interrupted and not shielded):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=NOTICE_S)
            try:
                return process.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                # `pulumi up` goes on waiting for the workers, until it is told a second time.
                process.send_signal(signal.SIGINT)
                return process.wait()


@contextlib.contextmanager
def interrupts_noted(runner: Runner) -> Iterator[None]:
    """Within, Ctrl-C and a request to end are noted, and nothing is cut short by them."""

    def note(number: int, frame: FrameType | None) -> None:
        runner.interrupted = True
        print("\nstopping: the fleet will be destroyed", file=sys.stderr, flush=True)

    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
