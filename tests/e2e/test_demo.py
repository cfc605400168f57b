"""The demo: whatever happens on the way, no worker is left running."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stemfleet.clouds.local import LocalCloud

pytestmark = pytest.mark.engine

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 120


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """Where this test's workers live; none of them outlives it."""
    root = tmp_path / "workers"
    monkeypatch.setenv("STEMFLEET_LOCAL_DIR", str(root))
    cloud = LocalCloud(root)
    yield cloud
    for machine in cloud.machines(""):
        cloud.destroy(machine.label)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout's files that the demo needs, in a path with a space."""
    folder = tmp_path / "my checkout"
    song = Path("tests", "sample", "song.flac")
    (folder / song.parent).mkdir(parents=True)
    shutil.copy(CHECKOUT / song, folder / song)
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml"):
        shutil.copy(CHECKOUT / name, folder / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "infra", folder / "infra", symlinks=True, ignore=ignored)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def demo(project: Path, *arguments: str) -> subprocess.Popen[str]:
    """The demo, started as a terminal would: leader of a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stemctl", "demo", "--json", *arguments],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_demo_gives_stems_and_leaves_nothing_running(
    project: Path, workers: LocalCloud
) -> None:
    said, progress = (running := demo(project)).communicate(timeout=LIMIT_S)
    assert running.returncode == 0, progress
    done = json.loads(said)
    assert list(done["seconds"]) == ["pulumi up", "stemctl submit", "pulumi destroy"]
    assert {stem.name for stem in Path(done["stems"]).glob("*.wav")} == {
        "vocals.wav",
        "instrumental.wav",
    }
    assert workers.machines("") == []
    committed = (CHECKOUT / "Pulumi.dev.yaml").read_text()
    assert (project / "Pulumi.dev.yaml").read_text() == committed


def test_ctrl_c_in_the_middle_destroys_the_fleet(project: Path, workers: LocalCloud) -> None:
    running = demo(project)
    deadline = time.monotonic() + LIMIT_S
    while not workers.machines("") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers.machines(""), "no worker was ever started"
    os.killpg(running.pid, signal.SIGINT)
    _, progress = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 130, progress
    assert "Traceback" not in progress
    assert workers.machines("") == []


def test_a_failed_step_destroys_the_fleet(project: Path, workers: LocalCloud) -> None:
    taken = project / "taken"
    taken.write_text("a file where the stems should go")
    said, progress = (running := demo(project, "--out", str(taken))).communicate(timeout=LIMIT_S)
    assert running.returncode == 1, progress
    assert json.loads(said)["failed"] == "stemctl submit"
    assert json.loads(said)["destroyed"] is True
    assert workers.machines("") == []
    assert taken.read_text() == "a file where the stems should go"
