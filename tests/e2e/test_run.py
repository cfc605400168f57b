"""`stemctl run` on the emulated Vast.ai: however it ends, no machine is paid for afterwards."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.clouds.clock import Clock
from tests.clouds.machines import RealWorker
from tests.clouds.vast import VastEmulator
from tests.e2e.conftest import REPOSITORY, SECONDS, Project

pytestmark = pytest.mark.engine

SONG = REPOSITORY / "tests" / "sample" / "song.flac"
OURS = "stemfleet.run-"


@pytest.fixture
def market(project: Project) -> Iterator[VastEmulator]:
    """The cloud that the project's engine finds, thirty times as fast as the real one."""
    with VastEmulator(clock=Clock(30.0), start=RealWorker) as cloud:
        project.environment.update(cloud.environment())
        yield cloud


def start(project: Project, *arguments: str, command: str = "run") -> subprocess.Popen[str]:
    """Begin `stemctl run`, as a shell does: in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stemctl", command, *arguments, "--json"],
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(project: Project, *arguments: str, command: str = "run") -> tuple[int, dict[str, Any]]:
    """`stemctl run` to its end."""
    with start(project, *arguments, command=command) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in err, err
    assert out, err
    return process.returncode, json.loads(out)


def order(song: Path, out: Path, *more: str) -> list[str]:
    """One song by one machine."""
    words = "--cloud vast --count 1 --preset center --image ghcr.io/example/worker:1 --yes"
    return [str(song), "--out", str(out), *words.split(), *more]


def until_rented(market: VastEmulator) -> None:
    """Wait until a machine is paid for."""
    deadline = time.monotonic() + SECONDS
    while not market.ledger.alive(OURS):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_rents_separates_and_ends_what_it_rented(
    project: Project, market: VastEmulator, tmp_path: Path
) -> None:
    market.rent_by_hand("stemfleet.running")
    market.clock.rate = 10.0  # the machine still boots when it is waited for
    project.environment.update(market.environment())
    out = tmp_path / "stems"
    code, told = run(project, *order(SONG, out, "--budget", "1"))
    assert (code, told["proven"], told["leak"]) == (0, True, None)
    assert {path.name for path in (out / "song").iterdir()} >= {"vocals.wav", "instrumental.wav"}
    assert len(market.ledger.contracts(OURS)) == 1
    assert [one.label for one in market.ledger.alive()] == ["stemfleet.running"]
    assert told["usd"] > 0
    _, quote = run(project, str(SONG), "--cloud", "vast", "--preset", "center", command="quote")
    assert quote["plans"]
    for plan in quote["plans"]:
        whole = plan["usd_per_hour"] * plan["hours"]
        assert 0 < plan["usd"] < whole * 0.99, "what the boot did not cost is known"

    for wrong in (
        order(tmp_path / "none.wav", out),
        order(SONG, out, "--budget", "0.0001"),
        order(SONG, out, "--by", "0.01m"),
        order(SONG, out, "--count", "many"),
    ):
        code, told = run(project, *wrong)
        assert (code, told["type"]) == (2, "input")
    assert len(market.ledger.contracts(OURS)) == 1, "what cannot be done rents nothing"


def test_a_fleet_that_cannot_be_had_is_ended(
    project: Project, market: VastEmulator, tmp_path: Path
) -> None:
    market.credit = 0.0
    code, told = run(project, *order(SONG, tmp_path / "stems"))
    assert code == 2
    assert "cannot be had" in told["error"]
    assert told["proven"]
    assert market.ledger.alive(OURS) == []


def test_ctrl_c_ends_the_machines(project: Project, market: VastEmulator, tmp_path: Path) -> None:
    with start(project, *order(SONG, tmp_path / "stems")) as process:
        until_rented(market)
        for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children()]:
            child.send_signal(signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=SECONDS)
    assert "Traceback" not in err, err
    told = json.loads(out)
    assert (process.returncode, told["proven"]) == (130, True)
    assert market.ledger.alive(OURS) == []


@pytest.mark.parametrize("choice", ["--destroy", "--finish"])
def test_after_a_crash_the_next_call_offers_to_finish_or_to_end(
    choice: str, project: Project, market: VastEmulator, tmp_path: Path
) -> None:
    shutil.copy(SONG, project.folder)
    with start(project, *order(Path(SONG.name), Path("stems"))) as process:
        until_rented(market)
        process.send_signal(signal.SIGKILL)
    for engine in psutil.process_iter(["name", "cwd"]):
        ours = str(engine.info["cwd"]).startswith(project.environment["HOME"])
        if engine.info["name"] == "pulumi" and ours:
            with contextlib.suppress(psutil.Error):
                engine.kill()
    if choice == "--destroy":  # also where the kill has cut the state short
        backend = project.environment["PULUMI_BACKEND_URL"].removeprefix("file://")
        (state,) = Path(backend, ".pulumi", "stacks").rglob("run-*.json")
        state.write_text("")
    code, told = run(project, *order(SONG, tmp_path / "other"))
    assert (code, told["type"]) == (2, "input")
    assert "--finish" in told["error"]
    assert "--destroy" in told["error"]
    code, told = run(project, choice)
    assert code == 0, told
    assert market.ledger.alive(OURS) == []
    assert (project.folder / "stems" / "song").exists() == (choice == "--finish")
    assert run(project, "--destroy") == (0, {"ended": []})


def test_kept_machines_stay_until_they_are_ended_by_name(
    project: Project, market: VastEmulator, tmp_path: Path
) -> None:
    code, told = run(project, *order(SONG, tmp_path / "stems", "--keep"))
    assert (code, told["kept"]) == (0, True)
    assert len(market.ledger.alive(OURS)) == 1
    code, told = run(project, "--destroy")
    assert code == 0
    assert len(told["ended"]) == 1
    assert market.ledger.alive(OURS) == []
