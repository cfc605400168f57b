"""A stack's endpoints as their clouds show them now: addresses change, machines come to an end."""

from __future__ import annotations

from pathlib import Path

from stemfleet.clouds.base import Machine, MachineState
from stemfleet.clouds.label import parse_label

from stemctl.errors import CloudsError
from stemctl.fleet.clouds import Answers, ask_clouds
from stemctl.fleet.stack import Fleet
from stemctl.fleet.state import project_name

GONE = "gone"
UNKNOWN = "unknown"


def resolve(fleet: Fleet, project: Path, stack: str) -> tuple[Fleet, dict[str, str], list[str]]:
    """The fleet with today's facts, each slot's state by its name, and who has not answered why.

    A slot's state is a machine's (`MachineState`), `GONE` or, where its cloud has not answered,
    `UNKNOWN`; the stack's facts stay where there are no newer ones.

    Raises:
        CloudsError: no cloud has answered.
    """
    prefix = f"{project_name(project)}.{stack}."
    clouds = [endpoint.cloud for endpoint in fleet.endpoints]
    answers: Answers[list[Machine]] = ask_clouds(clouds, lambda cloud: cloud.machines(prefix))
    if not answers.given:
        raise CloudsError("; ".join(answers.refusals))
    machines: dict[tuple[str, str], list[Machine]] = {}
    for cloud, listed in answers.given.items():
        for machine in listed:
            if parts := parse_label(machine.label):
                machines.setdefault((cloud, parts.slot), []).append(machine)
    states: dict[str, str] = {}
    endpoints = []
    for endpoint in fleet.endpoints:
        found = max(
            machines.get((endpoint.cloud, endpoint.slot), ()),
            key=lambda one: (one.id == endpoint.instance_id, one.state is MachineState.RUNNING),
            default=None,
        )
        if found is None:
            states[endpoint.slot] = GONE if endpoint.cloud in answers.given else UNKNOWN
            endpoints.append(endpoint)
            continue
        states[endpoint.slot] = found.state.value
        now = {
            "url": found.url or endpoint.url,
            "gpu": found.gpu,
            "region": found.region,
            "usd_per_hour": found.usd_per_hour,
            "instance_id": found.id,
        }
        endpoints.append(endpoint.model_copy(update=now))
    total = sum(endpoint.usd_per_hour for endpoint in endpoints)
    resolved = fleet.model_copy(update={"endpoints": tuple(endpoints), "usd_per_hour": total})
    return resolved, states, answers.refusals
