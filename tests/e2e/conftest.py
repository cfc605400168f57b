"""The project as a user has it, in a place of its own, driven by the real engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml  # type: ignore[import-untyped]
from stemctl.engine import find_engine
from stemfleet.clouds.local import LocalCloud
from stemfleet.clouds.processes import end_all_under

REPOSITORY = Path(__file__).parents[2]
SECONDS = 120
MARK = "STEMFLEET_TEST_PROJECT"
"""In the environment of the engine and its plugins, by which those left behind are found."""


@dataclass(frozen=True)
class Project:
    """A copy of the program, with the state and the workers of this test alone."""

    folder: Path
    command: tuple[str, ...]
    """The engine's."""
    environment: dict[str, str]

    @property
    def cloud(self) -> LocalCloud:
        """Where its workers are."""
        return LocalCloud(Path(self.environment["STEMFLEET_LOCAL_DIR"]))

    def attempt(self, *arguments: str) -> tuple[bool, str]:
        """Run the engine; whether it went well, and what it has printed."""
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        return done.returncode == 0, done.stdout

    def pulumi(self, *arguments: str, fails: bool = False) -> str:
        """Run the engine; what it has printed."""
        well, said = self.attempt(*arguments)
        assert well != fails, f"pulumi {' '.join(arguments)}:\n{said}"
        return said

    def up(self, *arguments: str, fails: bool = False) -> str:
        """`pulumi up`, without asking."""
        return self.pulumi("up", "--yes", "--skip-preview", *arguments, fails=fails)

    def destroy(self) -> str:
        """`pulumi destroy`, without asking."""
        return self.pulumi("destroy", "--yes", "--skip-preview")

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs, the token in clear."""
        outputs: dict[str, Any] = json.loads(
            self.pulumi("stack", "output", "--json", "--show-secrets")
        )
        return outputs

    def instances(self) -> dict[str, str]:
        """The instance in each slot, by the stack's outputs."""
        return {one["slot"]: one["instanceId"] for one in self.outputs()["endpoints"]}

    def declare(self, *groups: dict[str, Any]) -> None:
        """Write the groups into the stack's configuration."""
        file = self.folder / "Pulumi.dev.yaml"
        document = yaml.safe_load(file.read_text())
        document["config"]["stemfleet:groups"] = list(groups)
        file.write_text(yaml.safe_dump(document))

    def end_processes(self) -> None:
        """Kill what is left of commands that were killed, and workers of this machine."""
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get(MARK) == str(self.folder):
                    process.kill()
            except psutil.Error:
                continue

    def release(self) -> None:
        """Give up the lock of a run that was killed, if there is one, and mend the state it wrote.

        The engine writes its file in place, after a copy of the last one: what was rented since is
        known by its label alone then. What it notes beside the file may be cut short as well, and
        is not needed.
        """
        state = Path(self.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
        for file in state.glob(".pulumi/stacks/stemfleet/dev.json"):
            try:
                json.loads(file.read_bytes())
            except ValueError:
                shutil.copy(file.with_name("dev.json.bak"), file)
            file.with_name("dev.json.attrs").unlink(missing_ok=True)
        self.attempt("cancel", "--yes")  # fails where nothing was locked

    def running(self) -> list[str]:
        """The instances that really run, whatever state and outputs say."""
        return sorted(machine.id for machine in self.cloud.machines(""))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """The committed project and its `dev` stack, in a path with spaces; nothing is running yet."""
    folder = tmp_path / "my fleet"
    folder.mkdir()
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(
        REPOSITORY / "infra",
        folder / "infra",
        symlinks=True,
        ignore=shutil.ignore_patterns("__py*"),
    )
    (folder / ".venv").symlink_to(Path(sys.prefix))
    engine = find_engine()
    environment = engine.environment() | {
        "STEMFLEET_LOCAL_DIR": str(tmp_path / "local workers"),
        MARK: str(folder),
    }
    made = Project(folder, (str(engine.pulumi), "--non-interactive"), environment)
    made.pulumi("stack", "init", "dev")
    yield made
    made.end_processes()
    end_all_under((tmp_path / "local workers").resolve())
