"""Waiting for a fleet on RunPod: whatever becomes of a pod, the fleet gets ready or is told.

What the pods run stands in for workers.
"""

from __future__ import annotations

import pytest
from stemfleet.clouds.base import GpuFilter
from stemfleet.clouds.runpod import RunpodCloud
from stemfleet.errors import FleetError
from stemfleet.watch import STARTS, Proven, Wanted, Watch

from tests.clouds.faults import Fault
from tests.clouds.runpod import RunpodEmulator
from tests.infra.runpods import PREFIX, spec

TIMEOUT = 9.0
"""Seconds; a pod that does nothing is given half of it."""


class Fleet:
    """Two slots, rented."""

    def __init__(self, *, direct: bool = False) -> None:
        cloud = RunpodCloud()
        self.said: list[str] = []
        want = GpuFilter(direct_port=direct)
        self.wanted = [
            Wanted(f"pods-{i}", cloud, want, spec(f"{PREFIX}pods-{i}.0a1b2c3d4e5f60"))
            for i in range(2)
        ]
        self.rented = [cloud.rent(one.want, one.spec) for one in self.wanted]

    def watch(self) -> list[Proven]:
        """Wait for them."""
        return Watch(PREFIX, self.wanted, TIMEOUT, {}, self.said.append).run()


@pytest.mark.parametrize(
    ("fate", "direct", "reason"),
    [
        ("stuck-provisioning", False, "not ready for"),
        ("stuck-starting", True, "not ready for"),
        ("no-runtime", True, "not ready for"),
        ("no-address", True, "not ready for"),
        ("crash-loop", False, "not ready for"),
        ("unhealthy", True, "not ready for"),
        ("error", False, "is error"),
        ("exits", True, "is exited"),
        ("vanishes", False, "its machine is gone"),
        ("wrong-token", False, "does not know the stack's token"),
    ],
)
def test_a_dud_is_replaced_and_the_other_slot_is_left_alone(
    runpod: RunpodEmulator, fate: str, direct: bool, reason: str
) -> None:
    runpod.faults.arm_fate(fate)
    fleet = Fleet(direct=direct)
    proven = fleet.watch()
    assert [one.slot for one in proven] == ["pods-0", "pods-1"]
    assert proven[0].machine.id != fleet.rented[0].id
    assert proven[1].machine.id == fleet.rented[1].id
    ids = [one.machine.id for one in proven]
    assert sorted(one.id for one in runpod.ledger.alive(PREFIX)) == sorted(ids)
    assert runpod.ledger.most_alive(PREFIX) <= 3, "two, and one held while another is asked for"
    (line,) = [line for line in fleet.said if "is replaced" in line]
    assert line.startswith("pods-0")
    assert reason in line


def test_what_only_takes_its_time_is_waited_for(runpod: RunpodEmulator) -> None:
    runpod.boot_s = (20.0, 20.0, 20.0)
    runpod.list_lag_s = 20.0
    runpod.page_size = 1
    runpod.faults.arm("proxy", Fault(524, "A timeout occurred"), count=3)
    fleet = Fleet()
    assert [one.machine.id for one in fleet.watch()] == [one.id for one in fleet.rented]
    assert len(runpod.ledger.contracts(PREFIX)) == 2


@pytest.mark.parametrize("fault", [Fault(503, ""), Fault(429, "slow down"), Fault(reset=True)])
def test_nothing_is_replaced_on_the_strength_of_a_list_that_failed(
    runpod: RunpodEmulator, fault: Fault
) -> None:
    fleet = Fleet()
    runpod.faults.arm("list", fault, count=8)
    assert [one.machine.id for one in fleet.watch()] == [one.id for one in fleet.rented]
    assert len(runpod.ledger.contracts(PREFIX)) == 2


def test_a_slot_that_only_gets_duds_is_given_up_and_leaves_one_pod(runpod: RunpodEmulator) -> None:
    runpod.faults.arm_fate("error", count=99)
    with pytest.raises(FleetError, match="is error"):
        Fleet().watch()
    assert len(runpod.ledger.contracts(PREFIX)) == 2 * STARTS
    assert len(runpod.ledger.alive(PREFIX)) == 2, "which the next `up` or `destroy` finds"
    assert runpod.ledger.most_alive(PREFIX) <= 3
