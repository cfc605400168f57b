"""Everything that is known to go wrong with Vast.ai, by name, as it is armed on the emulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.clouds.faults import Fault
from tests.clouds.vast import VastEmulator

Arm = Callable[[VastEmulator], None]

HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
TOO_OFTEN = "API requests too frequent: endpoint threshold=4.5"
SLOW_SECONDS = 1.0
"""Real seconds of an answer that comes too late; a test's client waits for less."""


def no_such_ask(status: int) -> Fault:
    """The offer is gone, in one of the ways in which that is told."""
    message = "error 404/3603: no_such_ask Instance type by id 1 is not available"
    error = "no_such_ask" if status == 410 else "invalid_args"
    return Fault(status=status, body={"success": False, "error": error, "msg": message})


def refusal(error: str, message: str, status: int = 200) -> Fault:
    """An error, which may come with status 200."""
    return Fault(status=status, body={"success": False, "error": error, "msg": message})


BLIND = Fault(status=200, body={"success": True, "instances": [], "next_token": None})
"""A list that shows nothing, though there is something."""

GONE_V0 = refusal("deprecated_endpoint", "this endpoint is gone", 410)
AUTH_404 = refusal("auth_error", "Invalid user key", 404)
AUTH_401 = refusal("auth_error", "Invalid user key", 401)


def arms(endpoint: str, fault: Fault, count: int = 1, **more: Any) -> Arm:  # noqa: ANN401
    """A function that arms a fault."""
    return lambda cloud: cloud.faults.arm(endpoint, fault, count=count, **more)


def both(first: Arm, second: Arm) -> Arm:
    """A function that arms two faults."""

    def arm(cloud: VastEmulator) -> None:
        first(cloud)
        second(cloud)

    return arm


def fated(fate: str, count: int = 1) -> Arm:
    """A function that arms a machine's fate."""
    return lambda cloud: cloud.faults.arm_fate(fate, count=count)


def everywhere(name: str, fault: Fault, count: int, *endpoints: str) -> dict[str, Arm]:
    """The same fault at several endpoints."""
    return {f"{name} at {one}": arms(one, fault, count) for one in endpoints}


OVERCOME: dict[str, Arm] = {
    "offer gone, 400": arms("rent", no_such_ask(400), 3),
    "offer gone, 404": arms("rent", no_such_ask(404), 3),
    "offer gone, 410": arms("rent", no_such_ask(410), 3),
    "offer gone, 200": arms("rent", no_such_ask(200), 3),
    **everywhere("429, text", Fault(429, TOO_OFTEN), 2, "search", "rent", "list", "destroy"),
    **everywhere(
        "429, JSON, Retry-After 2",
        Fault(429, {"success": False, "error": "too_many"}, {"Retry-After": "2"}),
        2,
        *("search", "rent", "list", "destroy"),
    ),
    **everywhere("502 HTML", Fault(502, HTML), 2, "search", "rent", "list", "destroy"),
    **everywhere("500", Fault(500, {"error": "internal"}), 2, "search", "rent", "list", "destroy"),
    **everywhere("503", Fault(503, ""), 2, "search", "rent", "list", "destroy"),
    **everywhere("reset", Fault(200, reset=True), 2, "search", "rent", "list", "destroy"),
    **everywhere("200 HTML", Fault(200, HTML), 2, "search", "rent", "list", "destroy"),
    "lands, then 502": arms("rent", Fault(502, HTML, lands=True)),
    "lands, then reset": arms("rent", Fault(lands=True, reset=True)),
    "lands, then too slow": arms("rent", Fault(lands=True, delay=SLOW_SECONDS)),
    "lands, then 200 HTML": arms("rent", Fault(200, HTML, lands=True)),
    "destroyed, then 502": arms("destroy", Fault(502, HTML, lands=True)),
    "destroyed, then reset": arms("destroy", Fault(lands=True, reset=True)),
    "blind list, first": arms("list", BLIND),
    "blind list, second": arms("list", BLIND, skip=1),
    "blind list, third": arms("list", BLIND, skip=2),
    "listed late": fated("lag"),
    "refused bid that leaves a machine": fated("bid-too-low", 2),
    "sticky delete": fated("sticky-delete"),
    "deaf delete": fated("deaf-delete"),
}
"""A machine is rented, and ended, all the same."""

DISTURBING: dict[str, Arm] = {
    name: arm for name, arm in OVERCOME.items() if "slow" not in name and "refused bid" not in name
} | {
    "no list for long": arms("list", Fault(503, ""), 8),
    "no rental for long": arms("rent", Fault(502, HTML), 4),
    "lands twice without an answer": arms("rent", Fault(lands=True, reset=True), 2),
    "not destroyed for long": arms("destroy", Fault(500, ""), 8),
    "list retired": arms("list", GONE_V0),
    "bad key": arms("list", AUTH_401),
    "spending limit": arms("rent", refusal("spend_rate_limit", "later", 400)),
}
"""What may be armed in any order; some of it keeps a machine from being rented at first."""
