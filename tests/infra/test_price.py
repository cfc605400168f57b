"""What a fleet may cost at most, and whether the accounts hold enough for it."""

from __future__ import annotations

from typing import Any

import pytest
from stemfleet.config import FleetConfig, parse_config
from stemfleet.price import at_most, low_balances, table

from tests.clouds.faults import Fault
from tests.clouds.runpod import RunpodEmulator


def fleet(*groups: tuple[str, str, int, float | None]) -> FleetConfig:
    """A configuration of groups: name, cloud, count, cap."""
    declared: list[dict[str, Any]] = []
    for name, cloud, count, cap in groups:
        rented = {"image": "x", "gpu": {"maxUsdPerHour": cap}} if cap else {}
        declared.append({"name": name, "cloud": cloud, "count": count, **rented})
    return parse_config({"groups": declared, "maxUsdPerHour": 20})


MIXED = fleet(("here", "local", 2, None), ("pods", "runpod", 3, 0.7), ("gpu", "vast", 2, 0.45))


def test_the_worst_case_is_counts_times_caps() -> None:
    assert at_most(MIXED) == {"total": 3.0, "groups": {"here": 0.0, "pods": 2.1, "gpu": 0.9}}
    lines = [line.split() for line in table(MIXED).splitlines()]
    assert " ".join(lines[0]) == "The fleet costs at most 3.00 $/h (the limit: 20.00 $/h)"
    assert lines[2:] == [
        ["here", "local", "2", "0.00", "0.00"],
        ["pods", "runpod", "3", "0.70", "2.10"],
        ["gpu", "vast", "2", "0.45", "0.90"],
    ]


def test_an_account_that_pays_for_less_than_two_hours_is_told_of(runpod: RunpodEmulator) -> None:
    two = fleet(("a", "runpod", 2, 0.5), ("b", "runpod", 1, 1.0), ("here", "local", 1, None))
    runpod.credit = 4.01
    assert low_balances(two) == []
    runpod.credit = 3.0
    (warning,) = low_balances(two)
    assert warning.startswith("runpod: the account holds 3.00 $")
    assert "2.00 $/h) for 1.5 h" in warning


def test_an_account_that_does_not_answer_is_passed_over(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = fleet(("pods", "runpod", 1, 1.0))
    runpod.credit = 0.1
    runpod.faults.arm("graphql:clientBalance", Fault(status=500), count=100)
    assert low_balances(pods) == []
    runpod.faults.disarm()
    monkeypatch.delenv("RUNPOD_API_KEY")
    assert low_balances(pods) == []


def test_nobody_is_asked_about_a_fleet_that_costs_nothing(runpod: RunpodEmulator) -> None:
    assert low_balances(fleet(("here", "local", 2, None))) == []
    assert runpod.ledger.calls() == []
