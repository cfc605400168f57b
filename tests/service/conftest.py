"""Workers for the tests of the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.worker import STAND_IN, RunningWorker, running_worker


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker with a token, over the stand-in for the separation; shared by a module's tests."""
    data_dir = tmp_path_factory.mktemp("worker") / "data"
    with running_worker(data_dir, "the-token", separation_command=STAND_IN) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(worker: RunningWorker) -> Iterator[httpx.Client]:
    """A client of `worker` that sends its token."""
    with worker.client() as ours:
        yield ours


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The data directory of a worker that a test starts for itself."""
    return tmp_path / "data"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch's threads wait for each other at every step: on a busy machine that takes minutes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that weights are looked for in; networks run in float32."""
    place = tmp_path / "weights"
    place.mkdir()
    monkeypatch.setenv("STEMSERVE_WEIGHTS", str(place))
    monkeypatch.setenv("STEMSERVE_PRECISION", "exact")
    monkeypatch.setattr("stemserve.separation.separators._loaded", {})
    return place
