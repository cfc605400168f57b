"""Workers that really run, for the tests of stemctl."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from stemctl.places import objects

from tests.cli.buckets import Store, running_store
from tests.cli.driving import TOKEN, endpoints
from tests.clouds.clock import Clock
from tests.clouds.machines import Nothing
from tests.clouds.runpod import RunpodEmulator
from tests.clouds.vast import VastEmulator
from tests.service.worker import RunningWorker, running_worker


@pytest.fixture(scope="package")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningWorker]]:
    """Two workers with the preset center, shared by all tests; they may fetch from loopback."""
    folder = tmp_path_factory.mktemp("workers")
    with ExitStack() as running:
        both = [
            running.enter_context(running_worker(folder / name, TOKEN, fetch_private=True))
            for name in ("one", "two")
        ]
        for worker in both:
            worker.wait_ready()
        yield both


@pytest.fixture
def fleet(workers: list[RunningWorker]) -> list[str]:
    """The options that name both workers."""
    return endpoints(*(worker.url for worker in workers))


@pytest.fixture
def dead_url(unused_port: int) -> str:
    """An endpoint that nobody serves."""
    return f"http://127.0.0.1:{unused_port}"


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and that refuses to be connected to."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run's stems go."""
    return tmp_path / "out"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Pulumi project without a program, in a path with a space."""
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: stemfleet\nruntime: python\n")
    return folder


@pytest.fixture
def vast(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    """Vast.ai, emulated, and its key in the environment."""
    with VastEmulator(clock=Clock(60.0), start=Nothing) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.fixture
def runpod(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunpodEmulator]:
    """RunPod, likewise."""
    with RunpodEmulator(Nothing).serve() as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store, and its keys in the environment."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    objects._client.cache_clear()
    with running_store() as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running
    objects._client.cache_clear()
