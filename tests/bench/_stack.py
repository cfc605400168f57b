"""A stack of its own for a bench, driven by the real engine as a user would."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from stemctl.engine import find_engine

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 3600


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


def report(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)
