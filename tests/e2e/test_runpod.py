"""A fleet of pods on the emulated RunPod: the real engine, and real workers behind the proxy."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.faults import Fault
from tests.clouds.machines import RealWorker
from tests.clouds.runpod import EXITED, TERMINATED, RunpodEmulator
from tests.e2e.conftest import Project
from tests.e2e.test_fleet import read_all, separate
from tests.infra.runpods import put
from tests.service.worker import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

PODS = {
    "name": "pods",
    "cloud": "runpod",
    "count": 2,
    "image": "ghcr.io/example/worker:1",
    "gpu": {"maxUsdPerHour": 0.8},
}
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


def test_a_direct_port_speaks_tls_and_an_outbid_pod_is_replaced(
    project: Project, runpod: RunpodEmulator
) -> None:
    cap = {"maxUsdPerHour": 0.8}
    project.declare(
        {**PODS, "name": "direct", "count": 1, "gpu": {**cap, "directPort": True}},
        {**PODS, "name": "spot", "count": 1, "gpu": {**cap, "spot": True, "regions": ["RO"]}},
    )
    project.up()
    direct, spot = project.outputs()["endpoints"]
    assert direct["url"].startswith("https://127.0.0.1:")
    assert "/proxy/" in spot["url"]
    pods = {slot: runpod.find(id_) for slot, id_ in living(runpod).items()}
    assert pods["direct-0"].ports == ["8185/tcp"]
    assert (pods["spot-0"].spot, pods["spot-0"].data_center) == (True, "EU-RO-1")
    assert spot["usdPerHour"] == pods["spot-0"].cost == 0.2

    runpod.end(pods["spot-0"], EXITED, "runpod")
    project.pulumi("refresh", "--yes")
    assert living(runpod) == {slot: pod.id for slot, pod in pods.items()}
    project.up()
    after = living(runpod)
    assert after["direct-0"] == pods["direct-0"].id
    assert after["spot-0"] != pods["spot-0"].id
    assert project.instances() == after

    project.destroy()
    assert runpod.ledger.alive() == []
    assert runpod.ledger.most_alive() == 2


def test_what_a_killed_update_had_rented_is_adopted(project: Project) -> None:
    with RunpodEmulator(rate=60).serve() as runpod:
        project.environment.update(runpod.environment)
        project.declare({**PODS, "count": 3})
        # The pods are made at once, their answers take a while: that is where the update dies.
        runpod.faults.arm("create", Fault(lands=True, delay=0.3), count=3)
        killed = subprocess.Popen(
            [*project.command, "up", "--yes", "--skip-preview"],
            cwd=project.folder,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: len(runpod.ledger.contracts()) >= 2, deadline_s=60)
        killed.kill()
        killed.wait()
        project.release()
        project.up()
        assert project.instances() == living(runpod)
        assert len(runpod.ledger.alive()) == 3
        project.destroy()
        assert runpod.ledger.alive() == []
