"""A fleet of pods on the emulated RunPod: the real engine, and real workers behind the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.machines import RealWorker
from tests.clouds.runpod import TERMINATED, RunpodEmulator
from tests.e2e.conftest import Project
from tests.e2e.test_fleet import read_all, separate
from tests.infra.runpods import put

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PODS = {"name": "pods", "cloud": "runpod", "count": 2, "image": "ghcr.io/example/worker:1"}
PREFIX = "stemfleet.dev."


@pytest.fixture
def runpod(project: Project) -> Iterator[RunpodEmulator]:
    """RunPod, its clock sixty times as fast; each pod is a process that separates."""
    with RunpodEmulator(RealWorker, rate=60).serve() as cloud:
        project.environment.update(cloud.environment)
        yield cloud


def living(cloud: RunpodEmulator) -> dict[str, str]:
    """Ids of the stack's pods that are paid for, by slot."""
    return {one.label.split(".")[2]: one.id for one in cloud.ledger.alive(PREFIX)}


def test_a_fleet_of_pods_lives_and_ends(project: Project, runpod: RunpodEmulator) -> None:
    foreign = put(runpod, "someone's notebook")
    project.declare(PODS)
    said = project.pulumi("preview")
    assert runpod.ledger.calls() == [], "a preview asks nothing"

    said += project.up()
    outputs = project.outputs()
    endpoints = outputs["endpoints"]
    assert {one["slot"]: one["instanceId"] for one in endpoints} == living(runpod)
    assert all(one["cloud"] == "runpod" and one["gpu"] == "RTX 4090" for one in endpoints)
    assert outputs["usdPerHour"] == pytest.approx(2 * 0.34)
    assert separate(endpoints[1], outputs["token"])["status"] == "completed"

    before = living(runpod)
    runpod.end(runpod.find(before["pods-0"]), TERMINATED, "runpod")
    said += project.up("--refresh")
    after = living(runpod)
    assert project.instances() == after
    assert after["pods-0"] != before["pods-0"]
    assert after["pods-1"] == before["pods-1"], "the other slot is left alone"
    assert len(runpod.ledger.contracts(PREFIX)) == 3

    said += project.destroy()
    assert living(runpod) == {}
    assert [one.id for one in runpod.ledger.alive()] == [foreign]
    assert runpod.ledger.most_alive(PREFIX) == 2
    state = project.environment["PULUMI_BACKEND_URL"].removeprefix("file://")
    for secret in (runpod.key, outputs["token"]):
        assert secret not in said
        assert secret.encode() not in read_all(Path(state))
    for contract in runpod.ledger.contracts(PREFIX):
        assert runpod.key not in contract.environment.values()
