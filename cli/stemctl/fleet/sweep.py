"""Machines that a project's fleets have left behind: they carry its labels, and no stack has them.

The clouds are asked before the states. So what an update rents meanwhile is in its stack's state,
or not among the machines.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stemfleet.clouds.base import CloudError, Machine
from stemfleet.clouds.label import parse_label
from stemfleet.clouds.registry import CLOUDS, find_cloud

from stemctl.fleet.clouds import Answers, ask_clouds
from stemctl.fleet.state import State, project_name, read_state


@dataclass(frozen=True)
class Found:
    """A machine that is in no stack. ``kept``: why it is not to be ended; empty: it may be."""

    cloud: str
    stack: str
    machine: Machine
    kept: str = ""


@dataclass(frozen=True)
class Survey:
    """All that is in no stack, and whom it was not possible to ask."""

    found: list[Found]
    state: State
    answers: Answers[list[Machine]]


def survey(project: Path, stacks: Collection[str], clouds: Collection[str] | None = None) -> Survey:
    """What carries the project's labels on the clouds and is in no stack of its backend.

    Args:
        project: The folder of the Pulumi project.
        stacks: Look at these alone; empty: at all. What belongs to a stack that the backend does
            not have may be in somebody else's: it is kept unless its stack is among these.
        clouds: Ask these alone; None: all.

    Raises:
        StackError: the backend does not tell which stacks there are.
        InputError: there is no such cloud.
    """
    name = project_name(project)
    answers = ask_clouds(clouds or CLOUDS, lambda cloud: cloud.machines(f"{name}."))
    state = read_state(project)
    found = [
        Found(cloud, parts.stack, machine, _reason_to_keep(parts.stack, stacks, state))
        for cloud, machines in answers.given.items()
        for machine in machines
        if (parts := parse_label(machine.label))
        and parts.project == name
        and (not stacks or parts.stack in stacks)
        and machine.label not in state.labels.get(parts.stack, ())
    ]
    return Survey(found, state, answers)


def _reason_to_keep(stack: str, stacks: Collection[str], state: State) -> str:
    if stack in state.unread:
        return state.unread[stack]
    if stack not in state.labels and stack not in stacks:
        return f"this backend has no stack {stack}, another may: to end it, give --stack {stack}"
    return ""


def end(project: Path, found: Collection[Found]) -> dict[Machine, str]:
    """End these machines. By machine why it was not ended; empty: it was.

    The states are asked again, as an update may have taken one up while somebody thought about it.
    """
    state = read_state(project)

    def end_one(one: Found) -> str:
        if one.stack in state.unread:
            return state.unread[one.stack]
        if one.machine.label in state.labels.get(one.stack, ()):
            return f"stack {one.stack} has taken it up meanwhile"
        try:
            find_cloud(one.cloud).destroy(one.machine.label)
        except CloudError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(8) as pool:
        outcomes = pool.map(end_one, found)
        return {one.machine: outcome for one, outcome in zip(found, outcomes, strict=True)}
