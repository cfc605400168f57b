"""Engines and providers that are killed at any moment: what they have rented is never lost."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.clouds.machines import StandIn
from tests.e2e.conftest import Project
from tests.e2e.rented import IMAGE, Clouds, labels_in, rented, state_of, stemctl
from tests.service.worker import eventually

KILLS = int(os.environ.get("STEMFLEET_TEST_KILLS", "10"))
"""Of each victim; `make soak` sets more."""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240 + 60 * KILLS)]

GROUPS: list[dict[str, Any]] = [
    {"name": name, "cloud": cloud, "count": 2, "image": IMAGE, "gpu": {"maxUsdPerHour": 0.8}}
    for name, cloud in (("gpu", "vast"), ("pods", "runpod"))
]
DECLARED = 4
UP = ("up",)
OTHERS = (("destroy",), ("destroy",), ("up", "--refresh"))
"""When all of the fleet is there."""

MOST_CALLS = 16
"""Requests to the clouds after which a run is killed at the latest."""


def kill_one(
    project: Project, clouds: Clouds, chance: random.Random, victims: tuple[str, ...]
) -> str:
    """Start a run, and kill a part of it after so many requests; what it was."""
    command = UP if len(clouds.alive()) < DECLARED else chance.choice(OTHERS)
    victim = chance.choice(victims)
    last = clouds.calls() + chance.randint(1, MOST_CALLS)
    run = subprocess.Popen(
        [*project.command, *command, "--yes", "--skip-preview"],
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: run.poll() is not None or clouds.calls() >= last, deadline_s=90)
    killed = 0
    with suppress(psutil.Error):
        engine = psutil.Process(run.pid)
        providers = [one for one in engine.children(recursive=True) if is_provider(one)]
        for process in [engine] * (victim != "provider") + providers * (victim != "engine"):
            process.kill()
            killed += 1
    run.wait(90)
    return f"{' '.join(command)}, its {victim} killed after {last} requests: {killed} processes"


def is_provider(process: psutil.Process) -> bool:
    """Whether it is the dynamic provider, or what has started it."""
    with suppress(psutil.Error):
        return "dynamic" in " ".join(process.cmdline())
    return False


def left_behind(project: Project, clouds: Clouds) -> set[str]:
    """The labels of what is paid for and is in no state."""
    return set(clouds.alive().values()) - labels_in(state_of(project))


@pytest.mark.parametrize("victims", [("engine", "engine and provider"), ("provider",)])
def test_killed_runs_lose_no_machine(project: Project, victims: tuple[str, ...]) -> None:
    with rented(project, StandIn) as clouds:
        project.declare(*GROUPS)
        chance = random.Random(20_26)
        for number in range(KILLS):
            told = kill_one(project, clouds, chance, victims)
            print(told, "; paid for:", sorted(clouds.alive().values()))
            project.release()
            clouds.check(DECLARED)
            if number % 5 == 1:
                project.end_processes()
                said = project.destroy()
                assert clouds.alive() == {}, f"{told}\n{said}"
            if number % 5 == 3:
                left, known = left_behind(project, clouds), labels_in(state_of(project))
                _, swept = stemctl(project, "sweep", "--destroy", "--yes")
                found = {row["label"] for row in swept["machines"]}
                assert found >= left, told
                assert not found & known, f"{told}: what the state knows is none left behind"
                assert left_behind(project, clouds) == set(), told
            if number % 5 == 4:
                said = project.up("--refresh")
                alive = clouds.alive()
                assert sorted(project.instances().values()) == sorted(alive), f"{told}\n{said}"
                assert len(alive) == DECLARED
                clouds.check(DECLARED, said + state_of(project))
        said = project.destroy()
        assert clouds.alive() == {}
        clouds.check(DECLARED, said + state_of(project))
