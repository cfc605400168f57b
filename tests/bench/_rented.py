"""The part of `provision` that rents: fleets of 100 and of 1,000 machines on an emulated Vast.ai.

100: its rate limits on, against what these and the boot alone take. 1,000: without the limits, as
only what comes after the renting is of interest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from stemfleet.clouds.vast_errors import SPACING

from tests.bench._stack import Stack, report
from tests.clouds.clock import Clock
from tests.clouds.machines import StandIn
from tests.clouds.vast import VastEmulator
from tests.clouds.vast_instances import Boot
from tests.clouds.vast_market import make_offer

CAP = 0.8
RATE = 5.0
"""Of the cloud's clock where `up` is timed: what the engine does is not faster than it is."""

FAST_RATE = 300.0
"""Where only what comes after is timed."""


def measure_rented(folder: Path) -> dict[str, Any]:
    """Both fleets; seconds are wall time of one `pulumi` command."""
    up = measure_up(Stack(folder / "100"), 100)
    large = measure_noop(Stack(folder / "1000"), 1000)
    return {
        "up_over_floor": up["up_over_floor"],
        "noop_preview_s": large["noop_preview_s"],
        "state_bytes_per_slot": large["state_bytes_per_slot"],
        "rented": [up, large],
    }


def measure_up(stack: Stack, slots: int) -> dict[str, Any]:
    """`up` against the least that the renting and the boot of the last machine take."""
    report(f"{slots} machines are rented, under the cloud's limits")
    with _market(stack, slots, RATE) as cloud:
        up = stack.run("up", "--yes")
        report(f"`up` took {up} s")
        rented = len(cloud.ledger.contracts())
        stack.run("destroy", "--yes")
        left = len(cloud.ledger.alive())
    floor = ((slots - 1) * SPACING["rent"] + Boot().ports) / RATE
    return {
        "slots": slots,
        "clock_rate": RATE,
        "machines_rented": rented,
        "machines_left": left,
        "up_s": up,
        "floor_s": round(floor, 2),
        "up_over_floor": round(up / floor, 3),
    }


def measure_noop(stack: Stack, slots: int) -> dict[str, Any]:
    """A preview that finds nothing to do, and how large the state is."""
    report(f"{slots} machines are rented, without limits: this takes minutes")
    with _market(stack, slots, FAST_RATE, limits=False):
        up = stack.run("up", "--yes", "--skip-preview")
        report(f"`up` took {up} s")
        preview = stack.run("preview", "--expect-no-changes")
        report(f"a preview that finds nothing to do took {preview} s; now all are ended")
        (state,) = stack.state.rglob("dev.json")
        size = state.stat().st_size
        destroy = stack.run("destroy", "--yes", "--skip-preview")
    return {
        "slots": slots,
        "up_s": up,
        "noop_preview_s": preview,
        "state_bytes_per_slot": size // slots,
        "destroy_s": destroy,
    }


def _market(stack: Stack, slots: int, rate: float, *, limits: bool = True) -> VastEmulator:
    """A cloud with enough machines, and a stack that asks for so many of them."""
    offers = [make_offer(number) for number in range(1, slots + slots // 10 + 1)]
    cloud = VastEmulator(clock=Clock(rate), offers=offers, start=StandIn, credit=1e6, limits=limits)
    stack.environment.update(cloud.environment())
    file = Path(stack.folder) / "Pulumi.dev.yaml"
    document = yaml.safe_load(file.read_text())
    group = {"name": "gpu", "cloud": "vast", "count": slots, "image": "ghcr.io/example/worker:1"}
    document["config"] |= {
        "stemfleet:groups": [{**group, "gpu": {"maxUsdPerHour": CAP}}],
        "stemfleet:maxUsdPerHour": str(slots * CAP),
        "stemfleet:readyTimeoutSeconds": 1800,
    }
    file.write_text(yaml.safe_dump(document))
    return cloud
