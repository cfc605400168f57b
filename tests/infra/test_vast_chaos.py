"""Vast.ai's faults in whatever order, and processes that die among them: nothing is left."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
from stemfleet.clouds import vast
from stemfleet.clouds.base import CloudError, GpuFilter, WorkerSpec
from stemfleet.clouds.vast import VastCloud

from tests.clouds.clock import Clock
from tests.clouds.faults import Fault
from tests.clouds.vast import VastEmulator
from tests.clouds.vast_instances import FATES
from tests.clouds.vast_market import make_market
from tests.infra.vast_faults import DISTURBING
from tests.service.worker import eventually

PREFIX = "stemfleet.dev."
LABELS = [f"{PREFIX}gpu-{i}.0a1b2c3d4e5f60" for i in range(3)]
FOREIGN = "stemfleet.development.gpu-0.0a1b2c3d4e5f60"
SEEDS = range(10)
KILLS = range(5)


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    """The emulated cloud, with somebody else's machine in it."""
    with VastEmulator(clock=Clock(200.0), offers=make_market(120)) as cloud:
        cloud.rent_by_hand(FOREIGN)
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud
        assert [one.label for one in cloud.ledger.alive()] == [FOREIGN]


def rent(label: str) -> str:
    """The id of the machine under a label."""
    spec = WorkerSpec(label, "center", "the-stacks-token", "ghcr.io/example/worker:1")
    return VastCloud().rent(GpuFilter(), spec).id


def forget() -> None:
    """As a new process: what this one did is not known."""
    vast._accounts.clear()


def end_all() -> None:
    """Destroy the fleet, as a new process."""
    forget()
    for label in LABELS:
        VastCloud().destroy(label)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_in_whatever_order_nothing_is_left(
    market: VastEmulator, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(12):
        if chance.random() < 0.5:
            name = chance.choice(list(DISTURBING))
            DISTURBING[name](market)
        if chance.random() < 0.4:
            market.faults.arm_fate(chance.choice(list(FATES)))
        label = chance.choice(LABELS)
        with suppress(CloudError):
            chance.choice([rent, rent, VastCloud().destroy, VastCloud().machines])(label)
        if chance.random() < 0.2:
            with suppress(ValueError):  # nothing, or more than one, is under the label
                chance.choice([market.preempt, market.vanish, market.lose_host])(label)
        if chance.random() < 0.2:
            forget()
        market.clock.advance(chance.choice([0, 0, 5, 60]))
    market.faults.disarm()
    market.clock.advance(120)
    forget()
    kept = {label: rent(label) for label in LABELS}
    assert sorted(kept.values()) == sorted(one.id for one in market.ledger.alive(PREFIX))
    assert {label: rent(label) for label in LABELS} == kept
    end_all()


RENTS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from stemfleet.clouds.base import GpuFilter, WorkerSpec
from stemfleet.clouds.vast import VastCloud
def rent(label):
    spec = WorkerSpec(label, "center", "the-stacks-token", "ghcr.io/example/worker:1")
    VastCloud().rent(GpuFilter(), spec)
with ThreadPoolExecutor(4) as threads:
    list(threads.map(rent, sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", KILLS)
def test_what_a_killed_process_had_rented_is_adopted_by_the_next(
    market: VastEmulator, seed: int
) -> None:
    # Each machine is made at once, and the answer takes a while: there the process may die.
    market.faults.arm("rent", Fault(lands=True, delay=0.15), count=3)
    process = subprocess.Popen([sys.executable, "-c", RENTS, *LABELS])
    calls = random.Random(seed).randint(1, 12)
    eventually(lambda: len(market.ledger.calls()) >= calls or process.poll() is not None)
    process.kill()
    process.wait()
    # What it had asked for last may still be on its way.
    eventually(lambda: len(market.faults.fired) == len(market.ledger.calls("rent")))
    market.faults.disarm()
    market.clock.advance(5)
    rented = {one.label: one.id for one in market.ledger.alive(PREFIX)}
    kept = {label: rent(label) for label in LABELS}
    assert kept == kept | rented
    assert sorted(kept.values()) == sorted(one.id for one in market.ledger.alive(PREFIX))
    assert market.ledger.most_alive(PREFIX) == len(LABELS)
    end_all()
