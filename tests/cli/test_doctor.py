"""`stemctl doctor` on the common mistakes: each is found, and each says what to do."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stemctl.doctor import look_at_out
from stemserve.schema import Health, Preset, Ready, Status

from tests.cli.driving import endpoints, stemctl
from tests.cli.test_stack import asked, fleet_outputs, pulumi, put_outputs
from tests.cli.test_wanted import CENTER, NETWORK, status
from tests.service.worker import RunningWorker


@contextmanager
def answering(said: Status, ahead_s: float = 0.0) -> Iterator[str]:
    """The URL of what speaks like a worker, whose clock is wrong."""

    class Handler(http.server.BaseHTTPRequestHandler):
        """Answers what the doctor asks."""

        def do_GET(self) -> None:
            now = datetime.now(UTC) + timedelta(seconds=ahead_s)
            body = {
                "/health": Health(timestamp=now).model_dump_json(),
                "/status": said.model_dump_json(),
                "/ready": Ready(ready=True).model_dump_json(),
            }[self.path].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def worker_finding(said: Status, *options: str, ahead_s: float = 0.0) -> dict[str, Any]:
    """What the doctor finds of a worker that says so."""
    with answering(said, ahead_s) as url:
        answer = stemctl("doctor", *endpoints(url), *options, "--json")
    finding: dict[str, Any] = answer.json["findings"][-1]
    assert finding["check"].startswith("worker ")
    assert answer.code == (0 if finding["ok"] else 1)
    return finding


def test_a_clock_that_is_wrong_is_told() -> None:
    assert worker_finding(status(CENTER))["ok"]
    assert worker_finding(status(CENTER), ahead_s=30)["ok"]
    assert "s ahead of this machine's: set" in worker_finding(status(CENTER), ahead_s=600)["detail"]
    assert "s behind this machine's: set" in worker_finding(status(CENTER), ahead_s=-600)["detail"]


def test_a_worker_that_cannot_serve_a_preset_is_told_with_what_it_lacks() -> None:
    both = status(CENTER, NETWORK)
    assert worker_finding(both)["ok"]
    lacking = worker_finding(both, "--preset", "htdemucs")
    assert "needs torch: pip install" in lacking["detail"]
    assert "did you mean center?" in worker_finding(both, "--preset", "centre")["detail"]
    own = Preset(name="center", description="", stems=["vocals"], available=False, lacks="needs x")
    assert "cannot serve preset center: needs x" in worker_finding(status(own))["detail"]


def test_an_output_folder_that_cannot_be_written_or_is_full_is_told(
    tmp_path: Path, fleet: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    answer = stemctl("doctor", "--out", tmp_path / "file" / "stems", *fleet, "--json")
    assert answer.code == 1
    assert "cannot be written" in answer.json["findings"][0]["detail"]
    locked = look_at_out(Path("/proc/stems"), 1)
    assert not locked.ok
    assert "choose another" in locked.detail
    full = look_at_out(tmp_path / "stems", 1 << 60)
    assert not full.ok
    assert "free some" in full.detail
    assert not (tmp_path / "stems").exists()


@pytest.mark.engine
def test_keys_without_a_stack_say_what_comes_next(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_" + "x" * 40)
    answer = asked(project, "doctor")
    assert answer.code == 1
    assert "✗ stack: there is no stack dev" in answer.out
    assert "✓ keys: there is a key for runpod, which `stemctl offers` tries" in answer.out


@pytest.mark.engine
def test_a_lock_that_a_killed_update_has_left_is_told(
    project: Path, home: Path, workers: list[RunningWorker]
) -> None:
    put_outputs(project, fleet_outputs(workers[0].url))
    lock = home / "state" / ".pulumi" / "locks" / "organization" / "stemfleet" / "dev"
    lock.mkdir(parents=True, exist_ok=True)
    (lock / "left.json").write_text("{}")
    answer = asked(project, "doctor")
    assert answer.code == 1
    assert "✗ lock: stack dev: an update of it is running, or was killed" in answer.out
    assert "pulumi cancel --stack dev" in answer.out
    pulumi(project, "cancel", "--stack", "dev", "--yes")
    assert asked(project, "doctor").code == 0


def test_an_old_python_is_told() -> None:
    program = "import sys; sys.version_info = (3, 9, 1); import runpy; "
    program += "runpy.run_module('stemctl', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("stemctl: Python 3.11 or newer is needed, and this is 3.9")
