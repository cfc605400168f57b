"""What the separation process, which decodes what strangers send, cannot do."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.sounds import tones, write_audio
from tests.service.worker import ended, post, running_worker

PROBER = (sys.executable, str(Path(__file__).with_name("prober.py")))

KEPT = {
    "STEMSERVE_TLS_KEY": "",
    "CONTAINER_API_KEY": "vast-machine",
    "VAST_API_KEY": "vast-account",
    "RUNPOD_API_KEY": "runpod-account",
    "AWS_SECRET_ACCESS_KEY": "storage",
    "PULUMI_ACCESS_TOKEN": "stacks",
}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a real separation process found while it did a job."""
    folder = tmp_path_factory.mktemp("confined")
    with (
        pytest.MonkeyPatch.context() as patch,
        socket.create_server(("127.0.0.1", 0)) as listening,
    ):
        for name, value in KEPT.items():
            patch.setenv(name, value)
        patch.setenv("PROBE_PORT", str(listening.getsockname()[1]))
        patch.setenv("STEMSERVE_WEIGHTS", str(folder))
        write_audio(folder / "song.wav", tones(44_100), 44_100, "pcm_s16le")
        with running_worker(folder / "data", "the-token", separation_command=PROBER) as worker:
            worker.wait_ready()
            with worker.client() as client:
                job = ended(client, post(client, (folder / "song.wav").read_bytes()))
                assert job["status"] == "completed", job
                where = worker.data_dir / "jobs" / job["job_id"] / "findings.json"
                yield json.loads(where.read_text())
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


@on_linux
@pytest.mark.parametrize("way", ["tcp", "tcp6", "udp"])
def test_it_reaches_no_network(findings: dict[str, Any], way: str) -> None:
    assert findings[way] == "PermissionError"


@on_linux
@pytest.mark.parametrize("way", ["parent's environment", "parent's memory", "ptrace"])
def test_it_does_not_see_into_the_process_with_the_token(
    findings: dict[str, Any], way: str
) -> None:
    assert findings[way] == "PermissionError"


def test_its_environment_holds_no_secret(findings: dict[str, Any]) -> None:
    environment = findings["environment"]
    assert "the-token" not in json.dumps(environment)
    assert not set(KEPT) & set(environment)
    assert environment["STEMSERVE_WEIGHTS"]


def test_its_resources_are_limited(findings: dict[str, Any]) -> None:
    limits = findings["limits"]
    assert limits["RLIMIT_CORE"] == 0
    assert 0 < limits["RLIMIT_NOFILE"] <= 1024
    assert limits["RLIMIT_FSIZE"] > 2**32
    assert findings["niceness"] > 0
