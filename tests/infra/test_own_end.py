"""A rented machine that nobody needs any more ends itself, with no key but its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stemfleet.clouds.base import GpuFilter
from stemfleet.clouds.runpod import RunpodCloud
from stemfleet.clouds.vast import VastCloud
from stemfleet.identity import make_certificate

from tests.clouds.clock import Clock
from tests.clouds.machines import RealWorker
from tests.clouds.runpod import EXITED, RunpodEmulator
from tests.clouds.vast import VastEmulator
from tests.infra.runpods import LABEL, PREFIX, check_invariants, spec
from tests.service.worker import eventually

SPEC = replace(spec(), certificate=make_certificate(), idle_minutes=0.001)


def test_an_idle_machine_on_vast_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with VastEmulator(clock=Clock(60.0), start=RealWorker) as market:
        for name, value in market.environment().items():
            monkeypatch.setenv(name, value)
        foreign = market.rent_by_hand("stemfleet.development")
        cloud = VastCloud()
        cloud.rent(GpuFilter(), SPEC)
        eventually(lambda: cloud.machines(PREFIX), lambda machines: not machines, deadline_s=60)
        (contract,) = market.ledger.contracts(PREFIX)
        assert contract.ended_by == "its own key"
        assert market.key not in contract.environment.values()
        assert [one.id for one in market.ledger.alive()] == [str(foreign.id)]


@pytest.mark.parametrize("may_terminate", [True, False])
def test_an_idle_pod_ends_itself_or_where_it_may_not_stops(
    monkeypatch: pytest.MonkeyPatch, may_terminate: bool
) -> None:
    with RunpodEmulator(RealWorker, rate=60).serve() as runpod:
        runpod.pod_key_terminates = may_terminate
        for name, value in runpod.environment.items():
            monkeypatch.setenv(name, value)
        cloud = RunpodCloud()
        rented = cloud.rent(GpuFilter(direct_port=True), SPEC)
        if may_terminate:
            eventually(lambda: cloud.machines(PREFIX), lambda pods: not pods, deadline_s=60)
            (contract,) = runpod.ledger.contracts(LABEL)
            assert contract.ended_by == "itself"
        else:
            pod = runpod.find(rented.id)
            eventually(
                lambda: cloud.machines(PREFIX) and runpod.status(pod) == EXITED, deadline_s=60
            )
        check_invariants(runpod)
