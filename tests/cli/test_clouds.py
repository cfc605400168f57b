"""What stemctl asks the clouds itself: offers, machines left behind, and where machines are now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stemctl.app import create_app
from stemctl.fleet import sweep
from stemfleet.clouds.local import LocalCloud
from stemfleet.clouds.offers import RENTED
from stemfleet.clouds.processes import end_all_under
from typer.testing import CliRunner

from tests.cli.driving import stemctl
from tests.cli.test_stack import pulumi
from tests.clouds.faults import Fault
from tests.clouds.runpod import RunpodEmulator
from tests.clouds.vast import VastEmulator
from tests.infra.runpods import put

KEYS = ("VAST_API_KEY", "VASTAI_API_KEY", "RUNPOD_API_KEY")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCloud]:
    """This machine, with no workers but those of the test."""
    monkeypatch.setenv("STEMFLEET_LOCAL_DIR", str(tmp_path / "workers"))
    yield LocalCloud()
    end_all_under((tmp_path / "workers").resolve())


def put_slots(project: Path, stack: str, *labels: str) -> None:
    """Make a stack that has these slots in its state."""
    pulumi(project, "stack", "init", stack)
    state = json.loads(pulumi(project, "stack", "export", "--stack", stack))
    type_ = "pulumi-python:dynamic/vast:Instance"
    state["deployment"]["resources"] = [
        {
            "urn": f"urn:pulumi:{stack}::stemfleet::{type_}::{label.split('.')[2]}",
            "type": type_,
            "custom": True,
            "id": label,
        }
        for label in labels
    ]
    pulumi(project, "stack", "import", "--stack", stack, given=json.dumps(state))


def swept(*arguments: object, code: int) -> dict[str, dict[str, Any]]:
    """What `stemctl sweep` finds, by label."""
    answer = stemctl("sweep", *arguments, "--json")
    assert answer.code == code, answer
    return {row["label"]: row for row in answer.json["machines"]}


def test_the_offers_of_all_clouds_are_one_table(vast: VastEmulator, runpod: RunpodEmulator) -> None:
    answer = stemctl("offers", "--json", "--limit", 1000)
    assert answer.code == 0
    rows = answer.json["offers"]
    assert {row["cloud"] for row in rows} == {"vast", "runpod"}
    ranks = [row["usd_per_work"] for row in rows]
    assert ranks == sorted(ranks)
    assert ranks == pytest.approx([row["usd_per_hour"] / row["speed"] for row in rows])
    for row in rows:
        assert row["vram_gb"] >= 12 * 0.93
        assert row["reliability"] is None or row["reliability"] >= 0.97
        assert row["inet_down_mbps"] is None or row["inet_down_mbps"] >= 200
    assert answer.json["refused"] == {}
    assert answer.json["found"] == len(rows)

    shown = stemctl("offers", "--gpu", "RTX 4090", "--max-usd-per-hour", 0.5, "--limit", 3)
    assert shown.code == 0
    assert len([line for line in shown.out.splitlines() if "RTX 4090" in line]) == 3
    assert "3 of " in shown.err
    assert "an RTX 3090's is 1" in shown.err
    fewer = stemctl("offers", "--json", "--reliability", 0, "--cloud", "vast", "--limit", 1000)
    assert fewer.json["found"] > len([row for row in rows if row["cloud"] == "vast"])
    assert len(vast.ledger.contracts()) == 0


def test_a_cloud_without_a_key_is_left_out_and_said(
    vast: VastEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS[1:]:
        monkeypatch.delenv(name, raising=False)
    answer = stemctl("offers")
    assert answer.code == 0
    assert "left out: runpod: " in answer.err
    assert "RUNPOD_API_KEY" in answer.err
    monkeypatch.delenv("VAST_API_KEY")
    answer = stemctl("offers", "--json")
    assert (answer.code, answer.json["type"]) == (2, "cloud")


def test_a_filter_that_nothing_meets_says_what_excludes_how_many(vast: VastEmulator) -> None:
    answer = stemctl("offers", "--cloud", "vast", "--max-usd-per-hour", 0.001)
    assert answer.code == 2
    assert "maxUsdPerHour excludes" in answer.err
    assert stemctl("offers", "--cloud", "vest").err.startswith("stemctl: there is no cloud 'vest'")


def test_the_help_tells_the_defaults_that_there_are() -> None:
    said = CliRunner().invoke(create_app(), ["offers", "--help"]).stdout
    for default in (RENTED.vram_gb, RENTED.reliability, RENTED.inet_down_mbps, RENTED.disk_gb):
        assert f"Default: {default}." in said


@pytest.mark.engine
def test_a_sweep_ends_what_is_in_no_stack_and_nothing_else(
    vast: VastEmulator, runpod: RunpodEmulator, local: LocalCloud, project: Path
) -> None:
    known, lost = "stemfleet.dev.gpu-0.0a1b2c3d4e5f60", "stemfleet.dev.gpu-1.0a1b2c3d4e5f60"
    pod, elsewhere = "stemfleet.dev.pods-0.0a1b2c3d4e5f60", "stemfleet.prod.gpu-0.0a1b2c3d4e5f60"
    foreign = ("other.dev.gpu-0.0a1b2c3d4e5f60", "stemfleet.dev.gpu-1", "notebook")
    for label in (known, lost, elsewhere, *foreign):
        vast.rent_by_hand(label)
    put(runpod, pod)
    (local.root / "stemfleet.dev.here-0.0a1b2c3d4e5f60" / "dead").mkdir(parents=True)
    put_slots(project, "dev", known)

    found = swept("--project", project, code=1)
    assert set(found) == {lost, pod, "stemfleet.dev.here-0.0a1b2c3d4e5f60", elsewhere}
    assert found[lost]["usd_per_hour"] > 0
    assert found[lost]["since"] > 1e9
    assert "--stack prod" in found[elsewhere]["kept"]
    assert len(vast.ledger.alive()) == 6, "a list ends nothing"
    refused = stemctl("sweep", "--project", project, "--destroy")
    assert refused.code == 1
    assert "End 3 (" in refused.err
    assert len(vast.ledger.alive()) == 6, "who gives no answer has not said yes"

    answer = stemctl("sweep", "--project", project, "--destroy", "--yes")
    assert answer.code == 1, "one was kept"
    assert f"{lost}: ended" in answer.out
    assert {one.label for one in vast.ledger.alive()} == {known, elsewhere, *foreign}
    assert runpod.ledger.alive() == []
    assert local.machines("") == []
    gone = swept("--project", project, "--stack", "prod", "--destroy", "--yes", code=0)
    assert gone[elsewhere]["ended"]
    assert stemctl("sweep", "--project", project).out.strip() == "nothing is left behind"
    assert {one.label for one in vast.ledger.alive()} == {known, *foreign}


@pytest.mark.engine
def test_a_stack_that_cannot_be_looked_into_is_left_alone(
    vast: VastEmulator, local: LocalCloud, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del local
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    put_slots(project, "dev")
    put_slots(project, "test")
    ours = "stemfleet.dev.gpu-0.0a1b2c3d4e5f60"
    vast.rent_by_hand(ours)
    vast.rent_by_hand("stemfleet.test.gpu-0.0a1b2c3d4e5f60")
    state = Path(json.loads(pulumi(project, "whoami", "--json"))["url"].removeprefix("file://"))
    lock = state.expanduser() / ".pulumi/locks/organization/stemfleet/dev/0.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("{}")
    answer = stemctl("sweep", "--project", project, "--destroy", "--yes")
    assert answer.code == 1
    assert "stack dev is left alone: an update" in answer.err
    assert "not asked: runpod" in answer.err
    assert [one.label for one in vast.ledger.alive()] == [ours]
    lock.unlink()
    vast.faults.arm("list", Fault(status=500), count=100)
    answer = stemctl("sweep", "--project", project, "--cloud", "vast", "--destroy", "--yes")
    assert (answer.code, answer.out) == (2, "")
    vast.faults.disarm()
    assert swept("--project", project, "--destroy", "--yes", code=0)[ours]["ended"]
    assert vast.ledger.alive() == []


@pytest.mark.engine
def test_what_an_update_has_taken_up_meanwhile_is_not_ended(
    vast: VastEmulator, project: Path
) -> None:
    label = "stemfleet.dev.gpu-0.0a1b2c3d4e5f60"
    vast.rent_by_hand(label)
    pulumi(project, "stack", "init", "test")
    seen = sweep.survey(project, ["dev"], ["vast"])
    assert [one.machine.label for one in seen.found] == [label]
    put_slots(project, "dev", label)
    (outcome,) = sweep.end(project, seen.found).values()
    assert outcome == "stack dev has taken it up meanwhile"
    assert [one.label for one in vast.ledger.alive()] == [label]


@pytest.mark.engine
def test_endpoints_are_resolved_again_from_their_cloud(
    vast: VastEmulator, local: LocalCloud, project: Path
) -> None:
    del local
    label = "stemfleet.dev.gpu-0.0a1b2c3d4e5f60"
    machine = vast.rent_by_hand(label)
    pulumi(project, "stack", "init", "dev")
    state = json.loads(pulumi(project, "stack", "export"))
    root = "pulumi:pulumi:Stack"
    rows = [
        {
            "slot": slot, "url": "http://127.0.0.1:1", "cloud": "vast", "gpu": "?",
            "usdPerHour": 9.0, "region": "?", "instanceId": str(machine.id), "realtime": 1.0,
        }
        for slot in ("gpu-0", "gpu-1")
    ]  # fmt: skip
    outputs = {"endpoints": rows, "token": "the-token", "usdPerHour": 18.0}
    state["deployment"]["resources"] = [
        {"urn": f"urn:pulumi:dev::stemfleet::{root}::x", "type": root, "outputs": outputs}
    ]
    pulumi(project, "stack", "import", given=json.dumps(state))
    first, second = stemctl("endpoints", "--live", "--project", project, "--json").json["endpoints"]
    assert first["usd_per_hour"] == pytest.approx(machine.usd_per_hour)
    assert first["region"] == machine.offer["geolocation"]
    assert first["state"] in ("starting", "running")
    assert (second["state"], second["usd_per_hour"]) == ("gone", 9.0)
    assert "gone" in stemctl("endpoints", "--live", "--project", project).out
    assert stemctl("endpoints", "--live", "--endpoint", "http://127.0.0.1:1").code == 2
