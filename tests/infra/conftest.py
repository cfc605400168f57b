"""Workers of this machine for tests: real processes under a directory of the test's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stemfleet.clouds import local, runpod_account
from stemfleet.clouds.local import LocalCloud
from stemfleet.clouds.processes import end_all_under

from tests.clouds.runpod import RunpodEmulator
from tests.infra.runpods import check_invariants

STANDIN = (sys.executable, str(Path(__file__).with_name("standin.py")))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where workers live, in a path with a space; whatever runs there ends with the test."""
    path = tmp_path / "local workers"
    monkeypatch.setenv("STEMFLEET_LOCAL_DIR", str(path))
    yield path
    end_all_under(path.resolve())


@pytest.fixture
def cloud(root: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCloud:
    """This machine, with stand-ins for workers that go wrong as they are told."""
    monkeypatch.setattr(local, "COMMAND", STANDIN)
    return LocalCloud()


@pytest.fixture
def runpod(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunpodEmulator]:
    """RunPod, emulated, its clock thirty times as fast; what must hold is checked at the end."""
    runpod_account._accounts.clear()
    # What a test does to the emulator is to be seen at once.
    monkeypatch.setattr("stemfleet.clouds.runpod.LOOK_SECONDS", 0.0)
    with RunpodEmulator(rate=30).serve() as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        yield cloud
        check_invariants(cloud)


@pytest.fixture
def slowly(runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked of RunPod grows old in real time: none of it does within a test."""
    del runpod  # it sets the variable first
    monkeypatch.setenv("STEMFLEET_CLOUD_CLOCK", "1")


@pytest.fixture
def forget() -> Callable[[], None]:
    """Forgets what this process knows of RunPod, as another process would know nothing."""
    return runpod_account._accounts.clear
