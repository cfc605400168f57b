"""Waiting for a fleet on Vast.ai: whatever becomes of a machine, the fleet gets ready or is told.

What the machines run stands in for workers; the cloud's time passes two hundred times as fast.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stemfleet.clouds.base import GpuFilter, WorkerSpec
from stemfleet.clouds.vast import VastCloud
from stemfleet.errors import FleetError
from stemfleet.watch import STARTS, Proven, Wanted, Watch

from tests.clouds.clock import Clock
from tests.clouds.faults import Fault
from tests.clouds.machines import StandIn
from tests.clouds.vast import VastEmulator
from tests.clouds.vast_market import make_market

PREFIX = "stemfleet.dev."
TIMEOUT = 12.0
"""Seconds; a machine that does nothing is given half of it."""


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    """The emulated cloud, with stand-ins on its machines."""
    with VastEmulator(clock=Clock(200.0), offers=make_market(60), start=StandIn) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud


class Fleet:
    """Two slots, rented."""

    def __init__(self) -> None:
        cloud = VastCloud()
        self.said: list[str] = []
        self.wanted = [
            Wanted(
                f"gpu-{i}",
                cloud,
                GpuFilter(vram_gb=24),
                WorkerSpec(
                    f"{PREFIX}gpu-{i}.0a1b2c3d4e5f60", "center", "the-stacks-token", "an/image:1"
                ),
            )
            for i in range(2)
        ]
        for one in self.wanted:
            cloud.rent(one.want, one.spec)

    def watch(self) -> list[Proven]:
        """Wait for them."""
        return Watch(PREFIX, self.wanted, TIMEOUT, {}, self.said.append).run()


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        ("oci-error", "OCI runtime create failed"),
        ("pull-error", "pull access denied"),
        ("exits", "exited (1)"),
        ("outbid-a", "stopped"),
        ("outbid-b", "stopped"),
        ("phantom", "its machine is gone"),
        ("stuck-loading", "not ready for"),
        ("ports-null", "port 8185 is not mapped"),
        ("offline", "host does not answer"),
        ("unhealthy", "no answer from"),
    ],
)
def test_a_dud_is_replaced_on_another_host_and_the_other_slot_is_left_alone(
    market: VastEmulator, fate: str, reason: str
) -> None:
    market.faults.arm_fate(fate)
    fleet = Fleet()
    kept = market.find(fleet.wanted[1].spec.label).id
    proven = fleet.watch()
    assert [one.slot for one in proven] == ["gpu-0", "gpu-1"]
    assert proven[1].machine.id == str(kept)
    assert sorted(c.id for c in market.ledger.alive(PREFIX)) == sorted(
        one.machine.id for one in proven
    )
    assert market.ledger.most_alive(PREFIX) == 2
    hosts = [contract.host for contract in market.ledger.contracts(PREFIX)]
    assert len(hosts) == len(set(hosts)) == 3
    (line,) = [line for line in fleet.said if "is replaced" in line]
    assert line.startswith("gpu-0")
    assert reason in line


def test_it_is_told_how_long_each_machine_booted(market: VastEmulator) -> None:
    market.faults.arm_fate("slow-boot")
    slow, usual = Fleet().watch()
    assert slow.boot_seconds > usual.boot_seconds > 0


@pytest.mark.parametrize("fate", ["slow-boot", "ip-spaces", "unknown-then-back", "lag"])
def test_what_only_takes_its_time_is_waited_for(market: VastEmulator, fate: str) -> None:
    market.faults.arm_fate(fate)
    fleet = Fleet()
    assert len(fleet.watch()) == 2
    assert len(market.ledger.contracts(PREFIX)) == 2
    assert [line for line in fleet.said if "is replaced" in line] == []


@pytest.mark.parametrize("fault", [Fault(503, ""), Fault(429, "slow down"), Fault(200, reset=True)])
def test_nothing_is_replaced_on_the_strength_of_a_list_that_failed(
    market: VastEmulator, fault: Fault
) -> None:
    fleet = Fleet()
    market.faults.arm("list", fault, count=8)
    assert len(fleet.watch()) == 2
    assert len(market.faults.fired) == 8
    assert len(market.ledger.contracts(PREFIX)) == 2


def test_a_slot_that_only_gets_duds_is_given_up_and_leaves_one_machine(
    market: VastEmulator,
) -> None:
    market.faults.arm_fate("oci-error", count=99)
    with pytest.raises(FleetError, match="OCI runtime create failed"):
        Fleet().watch()
    assert len(market.ledger.contracts(PREFIX)) == 2 * STARTS
    assert len(market.ledger.alive(PREFIX)) == 2, "which the next `up` or `destroy` finds"
    assert market.ledger.most_alive(PREFIX) == 2
