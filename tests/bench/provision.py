"""How long fleets take to come and go, and what the state of a large one weighs.

Fleets of workers on this machine, against an empty stack; and fleets of 100 and of 1,000 machines
on an emulated Vast.ai, against the least that its limits and a machine's boot take. Seconds are
wall time of one `pulumi` command by the real engine, as a user would run it: `up` is with its
preview, and ends when each worker has separated a song. Renting takes some five minutes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from tests.bench._rented import measure_rented
from tests.bench._stack import Stack, report

SIZES = (2, 16)
TRIES = 3
"""Of the two `up`s that are compared; the quickest counts, as the rest is the machine's noise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this bench can be told."""
    parser.add_argument("--only", choices=("local", "rented"), help="a part of it")


def measure(only: str | None = None) -> dict[str, Any]:
    """All figures, or those of a part."""
    place = os.environ.get("TMPDIR", tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=place, prefix="provision-") as name:
        local = {} if only == "rented" else measure_local(Path(name))
        return local | ({} if only == "local" else measure_rented(Path(name)))


def measure_local(folder: Path) -> dict[str, Any]:
    """Fleets of 2 and of 16, and an empty stack, in the same run."""
    empty = Stack(folder / "empty", program="")
    fleets = {size: Stack(folder / f"fleet of {size}") for size in SIZES}
    for size, stack in fleets.items():
        stack.run("config", "set", "--path", "stemfleet:groups[0].count", str(size))
    cycles: dict[int, list[tuple[float, float, float]]] = {size: [] for size in SIZES}
    empty_ups: list[float] = []
    for _ in range(TRIES):
        empty_ups.append(empty.cycle()[0])
        cycles[2].append(fleets[2].cycle())
        report(f"empty {empty_ups[-1]} s; 2 workers {cycles[2][-1]} s")
    cycles[16].append(fleets[16].cycle())
    report(f"16 workers {cycles[16][-1]} s")
    best = {size: min(done) for size, done in cycles.items()}
    return {
        "fleets": [
            {"workers": size, "up_s": up, "preview_s": preview, "destroy_s": destroy}
            for size, (up, preview, destroy) in best.items()
        ],
        "empty_up_s": min(empty_ups),
        "dev_extra_s": round(best[2][0] - min(empty_ups), 2),
    }
