"""What goes wrong with the clouds while the engine is at work: by name, as it is armed.

``met_in`` is the command of the engine in which `make test` has it; with None it is only another
place of a trouble that is met already, and waits for `make soak`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.clouds.faults import Fault
from tests.clouds.runpod import NO_INSTANCES, RunpodEmulator
from tests.clouds.vast import VastEmulator
from tests.clouds.vast_instances import FATES
from tests.infra import vast_faults as vast
from tests.infra.vast_faults import HTML, refusal

UP, REFRESH, DESTROY = "up", "up --refresh", "destroy"
FLOWS = (UP, REFRESH, DESTROY)


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong on one cloud."""

    name: str
    met_in: str | None
    arm: Callable[[Any], None]


def at(
    endpoint: str, name: str, fault: Fault, met_in: str | None = None, count: int = 2
) -> Trouble:
    """A fault that the next requests to an endpoint meet."""
    return Trouble(
        f"{name} at {endpoint}",
        met_in,
        lambda cloud: cloud.faults.arm(endpoint, fault, count=count),
    )


def fated(fate: str) -> Trouble:
    """What becomes of the next machine that is made."""
    return Trouble(fate, UP, lambda cloud: cloud.faults.arm_fate(fate))


def set_to(name: str, value: object, met_in: str) -> Trouble:
    """The cloud is in another state."""
    return Trouble(f"{name} is {value}", met_in, lambda cloud: setattr(cloud, name, value))


def everywhere(
    name: str, fault: Fault, places: tuple[str, ...], met_at: str, met_in: str
) -> list[Trouble]:
    """The same fault at several endpoints, at one of them in `make test`."""
    return [at(one, name, fault, met_in if one == met_at else None) for one in places]


VAST_PLACES = ("search", "rent", "list", "destroy")
LATER_2 = Fault(429, {"success": False, "error": "too_many"}, {"Retry-After": "2"})
LATER_61 = Fault(429, {"success": False, "error": "too_many"}, {"Retry-After": "61"})


def _crowd(cloud: VastEmulator) -> None:
    """More machines than a page of a list holds; once, or none would be left to rent."""
    crowd = [f"someone's {number}" for number in range(26)]
    for label in crowd if not cloud.ledger.alive(crowd[0]) else ():
        cloud.rent_by_hand(label)


def _move(cloud: RunpodEmulator) -> None:
    """Every pod is started anew, behind other ports."""
    for pod in cloud.pods():
        cloud.reset(pod)


def _stick(cloud: RunpodEmulator) -> None:
    """Lists go on showing what has ended."""
    cloud.sticky_lists = 4
    for pod in cloud.pods():
        pod.listed_for = 4


VAST = [
    *everywhere("429 in words", Fault(429, vast.TOO_OFTEN), VAST_PLACES, "rent", UP),
    *everywhere("429 with a pause of 2 s", LATER_2, VAST_PLACES, "search", UP),
    *everywhere("429 with a pause of 61 s", LATER_61, VAST_PLACES, "list", REFRESH),
    *everywhere("500", Fault(500, {"error": "internal"}), VAST_PLACES, "list", REFRESH),
    *everywhere("502 in HTML", Fault(502, HTML), VAST_PLACES, "search", UP),
    *everywhere("503", Fault(503, ""), VAST_PLACES, "destroy", DESTROY),
    *everywhere("a reset", Fault(200, reset=True), VAST_PLACES, "destroy", DESTROY),
    *everywhere("HTML with 200", Fault(200, HTML), VAST_PLACES, "list", REFRESH),
    at("search", "a quota", refusal("search_quota_exceeded", "later", 429), UP),
    *(at("rent", f"gone, {n}", vast.no_such_ask(n), UP) for n in (400, 404, 410, 200)),
    at("rent", "lands, then 502", Fault(502, HTML, lands=True), UP, 1),
    at("rent", "lands, then a reset", Fault(lands=True, reset=True), REFRESH, 1),
    at("rent", "lands, then HTML", Fault(200, HTML, lands=True), UP, 1),
    at("rent", "lands twice unsaid", Fault(lands=True, reset=True), None, 2),
    at("rent", "an error with 200", refusal("oops", "something went wrong"), UP, 1),
    at("rent", "a spending limit", refusal("spend_rate_limit", "later", 400), REFRESH, 1),
    at("list", "an error with 200", refusal("oops", "something went wrong"), REFRESH, 1),
    at("list", "blind", vast.BLIND, REFRESH, 1),
    at("list", "retired", vast.GONE_V0, REFRESH, 1),
    at("list", "no key, 401", vast.AUTH_401, DESTROY, 1),
    at("rent", "no key, 404", vast.AUTH_404, UP, 1),
    at("destroy", "lands, then 502", Fault(502, HTML, lands=True), DESTROY, 1),
    at("destroy", "long 500", Fault(500, ""), None, 8),
    at("destroy", "unknown", refusal("no_such_instance", "not found", 404), DESTROY, 1),
    set_to("credit", 0.0, REFRESH),
    Trouble("more than a page of machines", REFRESH, _crowd),
]
VAST_FATES = [fated(fate) for fate in FATES]

RUNPOD_PLACES = ("catalog", "create", "list", "delete")


def _problem(status: int, detail: str) -> Fault:
    return Fault(status, {"title": "Refused", "status": status, "detail": detail})


RUNPOD = [
    *everywhere("429 in words", Fault(429, vast.TOO_OFTEN), RUNPOD_PLACES, "create", UP),
    *everywhere("429 with a pause of 2 s", LATER_2, RUNPOD_PLACES, "catalog", UP),
    *everywhere("429 with a pause of 61 s", LATER_61, RUNPOD_PLACES, "list", REFRESH),
    *everywhere("500", Fault(500, {"title": "oops"}), RUNPOD_PLACES, "list", REFRESH),
    *everywhere("502 in HTML", Fault(502, HTML), RUNPOD_PLACES, "catalog", UP),
    *everywhere("503", Fault(503, ""), RUNPOD_PLACES, "delete", DESTROY),
    *everywhere("a reset", Fault(reset=True), RUNPOD_PLACES, "delete", DESTROY),
    *everywhere("HTML with 200", Fault(200, HTML), RUNPOD_PLACES, "list", REFRESH),
    at("create", "lands, then 502", Fault(502, HTML, lands=True), UP, 1),
    at("create", "lands, then a reset", Fault(lands=True, reset=True), REFRESH, 1),
    at("create", "lands, then HTML", Fault(200, HTML, lands=True), UP, 1),
    at("create", "lands, without an id", Fault(201, {"name": "x"}, lands=True), UP, 1),
    at("create", "no capacity", _problem(400, NO_INSTANCES), UP),
    at("create", "no pool", _problem(403, "this account has no access to the pool"), UP),
    at("create", "no credit", _problem(402, "Insufficient balance"), REFRESH, 1),
    at("create", "a conflict", _problem(409, "name is taken"), REFRESH, 1),
    at("create", "too large", _problem(413, "Request body exceeds"), UP, 1),
    at("create", "unknown keys", _problem(422, "Request validation failed."), REFRESH, 1),
    at("create", "retired", _problem(410, "REST API v1 has been retired."), UP, 1),
    at("list", "another object", Fault(200, {"instances": []}), REFRESH, 1),
    at("list", "no key", _problem(401, "missing or invalid credentials"), DESTROY, 1),
    at("delete", "deaf", Fault(204, ""), DESTROY, 1),
    at("delete", "lands, then 502", Fault(502, HTML, lands=True), DESTROY, 1),
    at("delete", "locked", _problem(409, "it is locked"), DESTROY, 1),
    at("delete", "unknown", _problem(404, "pod not found"), DESTROY, 1),
    at("proxy", "502", Fault(502, ""), UP, 3),
    at("proxy", "524", Fault(524, ""), UP, 1),
    set_to("credit", 0.0, REFRESH),
    set_to("list_lag_s", 3.0, UP),
    set_to("list_lag_s", 20.0, REFRESH),
    Trouble("sticky lists", DESTROY, _stick),
    set_to("page_size", 1, REFRESH),
    Trouble("other ports", REFRESH, _move),
]
RUNPOD_FATES = [fated(fate) for fate in RunpodEmulator.fates]


def put_right(vast_cloud: VastEmulator, runpod: RunpodEmulator) -> None:
    """From now on all goes well."""
    for cloud in (vast_cloud, runpod):
        cloud.faults.disarm()
        cloud.credit = 100.0
    runpod.list_lag_s, runpod.sticky_lists, runpod.page_size = 0.0, 0, None
