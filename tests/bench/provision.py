"""How long a fleet of workers on this machine takes to come and go, against an empty stack.

Every figure is wall time in seconds of one `pulumi` command by the real engine, as a user would
run it: `up` is with its preview, and ends when each worker has separated a song.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stemctl.engine import find_engine

REPOSITORY = Path(__file__).parents[2]
SIZES = (2, 16)
TRIES = 3
"""Of the two `up`s that are compared; the quickest counts, as the rest is the machine's noise."""

TIMEOUT = 1800


class Stack:
    """A copy of the project with state and workers of its own."""

    def __init__(self, folder: Path, program: str | None = None) -> None:
        """``program`` takes the place of the fleet's."""
        self.folder = folder / "project"
        self.folder.mkdir(parents=True)
        shutil.copy(REPOSITORY / "Pulumi.yaml", self.folder)
        shutil.copy(REPOSITORY / "Pulumi.dev.yaml", self.folder)
        infra = self.folder / "infra"
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "infra", infra, symlinks=True, ignore=leave)
        (self.folder / ".venv").symlink_to(Path(sys.prefix))
        if program is not None:
            (infra / "__main__.py").write_text(program)
        self.state = folder / "state"
        self.state.mkdir()
        engine = find_engine()
        self.command = [str(engine.pulumi), "--non-interactive"]
        self.environment = engine.environment() | {
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.state}",
            "STEMFLEET_LOCAL_DIR": str(folder / "workers"),
        }
        self.run("stack", "init", "dev")

    def run(self, *arguments: str) -> float:
        """Seconds that the engine took."""
        started = time.perf_counter()
        subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=True,
        )
        return round(time.perf_counter() - started, 2)

    def cycle(self) -> tuple[float, float, float]:
        """Seconds of `up`, of a `preview` that finds nothing to do, and of `destroy`."""
        try:
            up = self.run("up", "--yes")
            preview = self.run("preview")
        finally:
            destroy = self.run("destroy", "--yes")
        return up, preview, destroy


def measure() -> dict[str, Any]:
    """Fleets of 2 and of 16, and an empty stack, in the same run."""
    place = os.environ.get("TMPDIR", tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=place, prefix="provision-") as name:
        folder = Path(name)
        empty = Stack(folder / "empty", program="")
        fleets = {size: Stack(folder / f"fleet of {size}") for size in SIZES}
        for size, stack in fleets.items():
            stack.run("config", "set", "--path", "stemfleet:groups[0].count", str(size))
        cycles: dict[int, list[tuple[float, float, float]]] = {size: [] for size in SIZES}
        empty_ups: list[float] = []
        for _ in range(TRIES):
            empty_ups.append(empty.cycle()[0])
            cycles[2].append(fleets[2].cycle())
            _report(f"empty {empty_ups[-1]} s; 2 workers {cycles[2][-1]} s")
        cycles[16].append(fleets[16].cycle())
        _report(f"16 workers {cycles[16][-1]} s")
    best = {size: min(done) for size, done in cycles.items()}
    return {
        "fleets": [
            {"workers": size, "up_s": up, "preview_s": preview, "destroy_s": destroy}
            for size, (up, preview, destroy) in best.items()
        ],
        "empty_up_s": min(empty_ups),
        "dev_extra_s": round(best[2][0] - min(empty_ups), 2),
    }


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
