"""Everything that is known to go wrong with a cloud, while the real engine is at work.

Whatever a run under trouble has left, the next run without it finds: each machine that was ever
rented is in the state by then, or it has ended.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.clouds.machines import StandIn
from tests.clouds.runpod import EXITED, TERMINATED
from tests.e2e.conftest import Project
from tests.e2e.rented import Clouds, labels_in, rented, state_of
from tests.e2e.test_fleet import read_all
from tests.e2e.test_kills import DECLARED, GROUPS
from tests.e2e.troubles import (
    DESTROY,
    FLOWS,
    REFRESH,
    RUNPOD,
    RUNPOD_FATES,
    UP,
    VAST,
    VAST_FATES,
    Trouble,
    put_right,
)

EVERY = os.environ.get("STEMFLEET_TEST_FAULTS") == "every"
"""Each trouble by itself in every command, as in `make soak`; else each in one, some together."""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

PATIENCE, PATIENCE_UNDER_TROUBLE = 90, 12
"""Seconds that `up` may take to get its workers ready."""

Round = dict[str, list[tuple[str, Trouble]]]
"""By command of the engine: which troubles come up on which cloud."""


def every_round() -> list[Round]:
    """Each trouble by itself in each command."""
    clouds = {"vast": VAST + VAST_FATES, "runpod": RUNPOD + RUNPOD_FATES}
    return [
        {flow: [(name, them[n % len(them)]) for name, them in clouds.items()] for flow in FLOWS}
        for n in range(max(map(len, clouds.values())))
    ]


def few_rounds() -> list[Round]:
    """Each trouble in the command where it matters most, and with others.

    What becomes of machines is apart from what keeps them from being rented.
    """
    clouds = {"vast": (VAST, VAST_FATES), "runpod": (RUNPOD, RUNPOD_FATES)}
    told: list[Round] = [{flow: [] for flow in FLOWS} for _ in range(3)]
    for name, (troubles, fates) in clouds.items():
        told[0][UP] += [(name, one) for one in troubles if one.met_in == UP]
        for n in (1, 2):
            told[n][UP] += [(name, one) for one in fates[n - 1 :: 2]]
        for flow in (REFRESH, DESTROY):
            met = [(name, one) for one in troubles if one.met_in == flow]
            for n in range(3):
                told[n][flow] += met[n::3]
    return told


def lose_some(clouds: Clouds, number: int) -> None:
    """A machine of each cloud is lost, in one way or another."""
    for id_, label in clouds.alive().items():
        if ".gpu-0." in label:
            (clouds.vast.preempt if number % 2 else clouds.vast.vanish)(label)
        elif ".pods-0." in label:
            how = EXITED if number % 2 else TERMINATED
            clouds.runpod.end(clouds.runpod.find(id_), how, "runpod")


def check_secrets(project: Project, clouds: Clouds, said: str) -> None:
    """No account's key is where it can be read, nor is the stack's token."""
    backend = Path(project.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
    written = read_all(backend)
    for cloud in (clouds.vast, clouds.runpod):
        assert cloud.key.encode() not in written
        for contract in cloud.ledger.contracts():
            token = contract.environment.get("STEMSERVE_TOKEN")
            assert token is None or token not in said
            assert token is None or token.encode() not in written


def is_whole(project: Project, clouds: Clouds, flow: str) -> bool:
    """Whether state and clouds agree on a fleet that is as the command was to leave it."""
    alive = clouds.alive()
    if flow == DESTROY:
        return not alive
    known = labels_in(state_of(project))
    return len(alive) == DECLARED and sorted(alive.values()) == sorted(known)


def give(project: Project, seconds: int) -> None:
    """How long `up` waits for its workers; half of it for one that does not come."""
    file = project.folder / "Pulumi.dev.yaml"
    document = yaml.safe_load(file.read_text())
    document["config"]["stemfleet:readyTimeoutSeconds"] = seconds
    file.write_text(yaml.safe_dump(document))


def run(project: Project, flow: str) -> tuple[bool, str]:
    """Whether the command went well, and what it said."""
    return project.attempt(*flow.split(), "--yes", "--skip-preview")


@pytest.mark.parametrize(
    ("number", "told"), list(enumerate(every_round() if EVERY else few_rounds()))
)
def test_no_trouble_loses_a_machine(project: Project, number: int, told: Round) -> None:
    with rented(project, StandIn) as clouds:
        project.declare(*GROUPS)
        for flow, troubles in told.items():
            if flow == REFRESH:
                lose_some(clouds, number)
            for cloud, trouble in troubles:
                trouble.arm(getattr(clouds, cloud))
            names = f"{flow}: " + ", ".join(f"{cloud}: {one.name}" for cloud, one in troubles)
            give(project, PATIENCE_UNDER_TROUBLE)
            well, said = run(project, flow)
            print(f"{names}\n -> {'well' if well else 'failed'}; paid for: {clouds.alive()}")
            clouds.check(DECLARED, said)
            put_right(clouds.vast, clouds.runpod)
            give(project, PATIENCE)
            if not (well and is_whole(project, clouds, flow)):
                well, again = run(project, REFRESH if flow == UP else flow)
                said += again
                assert well, f"{names}\n{said}"
                assert is_whole(project, clouds, flow), f"{names}\n{said}"
            clouds.check(DECLARED, said)
            check_secrets(project, clouds, said)
