"""The API must answer while the heavy libraries are still far away: it never loads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.worker import STAND_IN, ended, post, running_worker

HEAVY = ("numpy", "scipy", "torch", "av", "soxr", "demucs", "httpx")


def test_the_api_loads_nothing_heavy(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with running_worker(data_dir, separation_command=STAND_IN) as worker:
        worker.wait_ready()
        with worker.client() as client:
            assert ended(client, post(client, b"copy"))["status"] == "completed"
        lines = worker.log.read_text().splitlines()
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in lines
        if line.startswith("import time:")
    }
    assert "fastapi" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "program", [("-m", "stemserve"), ("-c", "import stemserve.__main__ as m; m.main()")]
)
def test_help_names_every_flag_and_the_token(program: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, *program, "serve", "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for flag in ("host", "port", "socket-fd", "data-dir", "label", "preset", "queue-limit"):
        assert f"--{flag}" in done.stdout
    assert "STEMSERVE_" in done.stdout
