"""A worker's default preset is loaded before it says that it is ready."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from stemserve.separation.presets import PRESETS

from tests.service.networks import HT, make_checkpoint, make_weights
from tests.service.worker import eventually, running_worker


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "weights"
    place.mkdir()
    monkeypatch.setenv("STEMSERVE_WEIGHTS", str(place))
    monkeypatch.setenv("STEMSERVE_DEVICE", "cpu")
    return place


def test_the_networks_are_read_before_the_worker_is_ready(weights: Path, tmp_path: Path) -> None:
    make_weights(weights, PRESETS["htdemucs_ft"])
    with running_worker(tmp_path / "data", preset="htdemucs_ft") as worker:
        with worker.client() as client:
            assert client.get("/health").status_code == 200
            reason = client.get("/ready").json()["reason"]
        assert reason is None or "htdemucs_ft" in reason
        worker.wait_ready()
        read = sorted(path.name for path in weights.glob(".*.verified"))
        assert len(read) == 4  # each network's digest was taken when it was loaded
        log = worker.log.read_text()
    assert "htdemucs_ft is loaded" in log
    assert "no GPU is seen here" in log or "GPU: " in log


def test_damaged_weights_are_told_at_the_start_and_other_presets_go_on(
    weights: Path, tmp_path: Path
) -> None:
    make_checkpoint(weights, HT)
    found = next(weights.glob("*.th"))
    content = bytearray(found.read_bytes())
    content[len(content) // 2] ^= 0xFF
    found.write_bytes(content)
    with running_worker(tmp_path / "data", preset="htdemucs") as worker, worker.client() as client:
        up = eventually(
            lambda: client.get("/status").json(), lambda status: bool(status["presets"])
        )
        assert not up["models_ready"]
        answer = client.get("/ready")
        assert answer.status_code == 503
        assert "damaged" in answer.json()["reason"]
        assert {p["name"] for p in up["presets"] if p["available"]} >= {"center"}


def test_health_is_told_by_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def health(port: int) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("STEMSERVE_PORT", str(port))
        command = [sys.executable, "-m", "stemserve", "health"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    with running_worker(tmp_path / "data") as worker:
        with worker.client() as client:
            assert client.get("/health").is_success  # it is up
        assert health(int(worker.url.rpartition(":")[2])).returncode == 0
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        refused = health(silent.getsockname()[1])
    assert refused.returncode == 1
    assert "no worker answers" in refused.stderr
