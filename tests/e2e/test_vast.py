"""A fleet on the emulated Vast.ai, by the real engine, with real workers on its machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from stemfleet.clouds.base import Certificate
from stemfleet.probe import open_client, prove

from tests.clouds.clock import Clock
from tests.clouds.machines import RealWorker
from tests.clouds.vast import VastEmulator
from tests.e2e.conftest import Project

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

GROUP: dict[str, Any] = {
    "name": "gpu",
    "cloud": "vast",
    "count": 2,
    "image": "ghcr.io/example/worker:1",
    "gpu": {"names": ["RTX 4090", "RTX 3090"], "vramGb": 24, "maxUsdPerHour": 0.8},
}
PREFIX = "stemfleet.dev."


@pytest.fixture
def market(project: Project) -> Iterator[VastEmulator]:
    """The cloud that the project's engine finds, thirty times as fast as the real one."""
    with VastEmulator(clock=Clock(30.0), start=RealWorker) as cloud:
        project.environment.update(cloud.environment())
        cloud.rent_by_hand("stemfleet.development")
        yield cloud


def test_a_fleet_from_its_renting_over_a_lost_bid_to_its_end(
    project: Project, market: VastEmulator
) -> None:
    project.declare(GROUP)
    project.pulumi("config", "set", "maxUsdPerHour", "1.5")
    said = project.pulumi("preview", fails=True)
    assert "stemfleet:maxUsdPerHour: the fleet may cost up to 1.6 $/h (gpu: 2 × 0.8)" in said
    project.pulumi("config", "set", "maxUsdPerHour", "2")
    said += project.pulumi("preview")
    assert "The fleet costs at most 1.60 $/h (the limit: 2.00 $/h)" in said
    assert "encrypted with the empty passphrase" in said
    assert market.ledger.calls() == [], "a preview asks nothing"

    market.credit = 2.99
    market.clock.rate = 10.0  # the machines still boot when they are waited for
    project.environment.update(market.environment())
    said += project.up()
    market.clock.rate = 30.0
    project.environment.update(market.environment())
    assert said.index("vast: the account holds 2.9") < said.index("is ready")
    outputs = project.outputs()
    assert len(market.ledger.alive(PREFIX)) == 2
    assert outputs["usdPerHour"] == pytest.approx(
        sum(market.find(c.label).usd_per_hour for c in market.ledger.alive(PREFIX))
    )
    for one in outputs["endpoints"]:
        assert one["url"].startswith("https:")
        assert one["ownCertificate"]
        assert one["bootSeconds"] > 0
        with open_client(one["url"], Certificate("", "", outputs["ca"])) as client:
            assert one["cloud"] == "vast"
            assert one["url"].startswith("https://")
            assert one["gpu"] in GROUP["gpu"]["names"]
            assert one["realtime"] > 0
            end = time.monotonic() + 60
            assert prove(client, one["url"], outputs["token"], "center", end) > 0

    before = project.instances()
    (lost,) = [c.label for c in market.ledger.alive(PREFIX) if c.id == before["gpu-0"]]
    market.preempt(lost, "b")
    said += project.pulumi("refresh", "--yes")
    assert len(market.ledger.alive(PREFIX)) == 2, "what was lost is still paid for: it is kept"
    said += project.up()
    after = project.instances()
    assert after["gpu-0"] != before["gpu-0"]
    assert after["gpu-1"] == before["gpu-1"], "the other slot is left alone"
    assert sorted(c.id for c in market.ledger.alive(PREFIX)) == sorted(after.values())
    for offer in market.offers.values():
        offer["dph_base"] *= 3
    said += project.pulumi("preview", "--expect-no-changes", "--refresh")
    project.declare({**GROUP, "count": 3, "gpu": {**GROUP["gpu"], "maxUsdPerHour": 0.6}})
    said += project.pulumi("preview")
    assert "~ total : 1.6 => 1.8" in said
    project.declare(GROUP)

    market.vanish(next(c.label for c in market.ledger.alive(PREFIX) if c.id == after["gpu-1"]))
    said += project.up("--refresh")
    assert project.instances()["gpu-0"] == after["gpu-0"]
    assert market.ledger.most_alive(PREFIX) == 2

    said += project.destroy()
    assert [c.label for c in market.ledger.alive()] == ["stemfleet.development"]
    assert len(market.ledger.contracts(PREFIX)) == 4
    state = project.pulumi("stack", "export")
    for contract in market.ledger.contracts():
        assert market.key not in str(contract.environment)
    assert market.key not in said + state
    assert outputs["token"] not in said + state
    assert "PRIVATE KEY" not in said + state
