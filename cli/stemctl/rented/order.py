"""What a run that rents its own machines is to do: the choice of machines, put into an order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from stemfleet.clouds.registry import LOCAL

from stemctl.asked.wishes import Wishes, read_wishes
from stemctl.errors import CloudsError, InputError
from stemctl.fleet.stack import find_project
from stemctl.inputs.find import find_inputs
from stemctl.money.market import ask_market, check_songs, clouds_of, quoted_inputs
from stemctl.money.quote import choose, in_words
from stemctl.places.bucket import shown
from stemctl.rented.ephemeral import Order, new_name

RENTED_PRESET, LOCAL_PRESET = "ensemble", "center"
IDLE_MINUTES = 10
SPARE_HOURS = 2
"""A worker ends its machine so long after the run should have been over, whatever happened."""


def make_order(
    inputs: Sequence[str],
    out: Path,
    said: Mapping[str, str | None],
    *,
    clouds: str | None,
    count: str,
    gpus: Iterable[str] | None,
    max_price: float | None,
    spot: bool,
    image: str | None,
    by: str | None,
    budget: float | None,
    keep: bool,
    project: Path | None,
) -> Order:
    """The order for these songs. Asks the markets, and rents nothing.

    Raises:
        InputError: there is no song, no plan is within the limits, or an option cannot be.
        CloudsError: no market has told its prices.
        StackError: there is no project.
    """
    names = clouds_of(clouds)
    rented = [name for name in names if name != LOCAL]
    preset = said.get("preset") or (RENTED_PRESET if rented else LOCAL_PRESET)
    wanted = {**said, "preset": preset}
    wishes = read_wishes(wanted, Wishes())
    found = find_inputs(inputs, out, wishes)
    check_songs(found)
    folder = find_project(project)
    groups: list[dict[str, Any]] = []
    words: list[str] = []
    cap, machines = 0.01, _count(count)
    if rented:
        if not image:
            raise InputError(
                "rented machines run an image that holds the worker: name it with --image, or in "
                "STEMCTL_IMAGE"
            )
        market = ask_market(",".join(rented), gpus, max_price, spot=spot, by=by, budget=budget)
        counts = None if machines is None else [machines]
        quoted = quoted_inputs(found, preset, wishes.stems, market, counts)
        if not quoted.plans:
            refused = "; ".join(market.refusals) or f"nobody offers {count} such machines now"
            raise CloudsError(f"no machine can be rented: {refused}")
        plan = choose(quoted.plans, market.by_hours, budget)
        cap = plan.cap * plan.count
        words.append(in_words(plan))
        gpu: dict[str, Any] = {"names": [plan.gpu], "maxUsdPerHour": plan.cap}
        groups.append(
            {
                "name": "run",
                "cloud": plan.cloud,
                "count": plan.count,
                "preset": preset,
                "image": image,
                "gpu": {**gpu, "spot": True} if spot else gpu,
                "idleMinutes": IDLE_MINUTES,
                "leaseHours": round(plan.hours + SPARE_HOURS, 1),
            }
        )
    if LOCAL in names or not names:
        here = 1 if rented or machines is None else machines
        words.append(f"{here} worker{'' if here == 1 else 's'} on this machine")
        groups.append({"name": "here", "cloud": LOCAL, "count": here, "preset": preset})
    songs = "1 song" if len(found.songs) == 1 else f"{len(found.songs)} songs"
    return Order(
        project=folder.resolve(),
        stack=new_name(datetime.now().astimezone()),
        groups=tuple(groups),
        max_usd_per_hour=round(cap + 0.001, 3),
        inputs=tuple(inputs),
        folder=Path.cwd(),
        out=out,
        said=wanted,
        budget=budget,
        keep=keep,
        in_words=f"{songs} to {shown(out)}, by {' and '.join(words)}",
    )


def _count(text: str) -> int | None:
    """The number of machines; None: as many as the plan takes."""
    if text == "auto":
        return None
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise InputError(f"--count {text}: give a number of machines, or auto")
    return int(text)
