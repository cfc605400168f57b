"""A cloud that one entry in the registry adds is known to everything that asks for clouds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pulumi.dynamic.dynamic import serialize_provider
from stemctl.app import create_app
from stemctl.fleet.clouds import markets
from stemctl.fleet.comment import comment
from stemctl.fleet.preview import GroupChange, Preview
from stemfleet.clouds.base import GpuFilter, MachineState, Offer
from stemfleet.clouds.local import LocalCloud
from stemfleet.clouds.registry import CLOUDS, Registered
from stemfleet.config import ConfigError, parse_config
from stemfleet.slot import SlotProvider, slot_type
from typer.testing import CliRunner


class Shed(LocalCloud):
    """Machines that are processes here, and cost something."""

    name = "shed"

    def offers(self, want: GpuFilter) -> list[Offer]:
        """One, always."""
        return [Offer(id="1", gpu="RTX 3090", usd_per_hour=0.2, region="SE", host="shed")]


GROUP: dict[str, Any] = {
    "name": "tools",
    "cloud": "shed",
    "count": 2,
    "image": "example/worker:1",
    "gpu": {"maxUsdPerHour": 0.3},
}


@pytest.fixture
def shed(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Shed:
    """The cloud, added as an adapter is added."""
    added = Registered("the shed", "Bench", Shed, lambda want: want.direct_port)
    monkeypatch.setitem(CLOUDS, "shed", added)
    return Shed(cloud.root)


@pytest.mark.parametrize(
    ("cloud", "type_"),
    [("local", "local:Worker"), ("runpod", "runpod:Pod"), ("vast", "vast:Instance")],
)
def test_state_goes_on_knowing_the_slots_of_existing_stacks(cloud: str, type_: str) -> None:
    assert slot_type(cloud)._resource_type_name == f"dynamic/{type_}"


@pytest.mark.usefixtures("shed")
def test_its_groups_are_configured_capped_and_limited() -> None:
    (group,) = parse_config({"groups": [GROUP]}).groups
    assert group.usd_per_hour == pytest.approx(0.6)
    assert group.idle_minutes
    assert slot_type("shed")._resource_type_name == "dynamic/shed:Bench"
    with pytest.raises(ConfigError, match="'shed'"):
        parse_config({"groups": [{**GROUP, "cloud": "sheds"}]})


@pytest.mark.usefixtures("shed")
def test_its_offers_are_among_those_of_all() -> None:
    assert "shed" in markets()
    answer = CliRunner().invoke(create_app(), ["offers", "--json"])
    assert answer.exit_code == 0, answer.output
    (offer,) = json.loads(answer.stdout)["offers"]
    assert (offer["cloud"], offer["gpu"]) == ("shed", "RTX 3090")


def test_its_slots_are_rented_read_and_ended(shed: Shed) -> None:
    inputs = {
        "prefix": "stemfleet.dev.",
        "slot": "tools-0",
        "cloud": "shed",
        "preset": "center",
        "want": {"count": 1, "maxUsdPerHour": 0.3},
        "token": "the-stacks-token",
    }
    slot = SlotProvider()
    assert serialize_provider(slot)
    made = slot.create(inputs)
    assert made.id is not None
    (machine,) = shed.machines("stemfleet.dev.")
    assert (machine.label, machine.state) == (made.id, MachineState.RUNNING)
    assert slot.read(made.id, made.outs or {}).id == made.id
    slot.delete(made.id, made.outs or {})
    assert shed.machines("") == []


@pytest.mark.usefixtures("shed")
def test_reviewers_read_its_title() -> None:
    grown = GroupChange("tools", "shed", "RTX 3090", 0, 2, 0.0, 0.6, (), 0, None)
    assert "RTX 3090 on the shed" in comment(Preview("dev", (grown,), 5.0, ()))
