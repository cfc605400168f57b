"""What a run would cost and how long it would take, before anything is rented.

A plan is a number of machines of one kind, at today's prices. Tracks are pulled by whoever has
room, and long ones are shared, so that all machines end together: the time is that of booting, and
then the audio over the speed of all. Every machine is paid for the whole of it, except for what its
cloud does not charge while it boots.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from stemfleet.clouds.base import Offer

from stemctl.errors import InputError
from stemctl.inputs.headers import Length
from stemctl.money.speeds import boot_of, speed_of

SHARE_S = 300.0
"""Of audio at least for each machine: more machines would only boot."""

MAX_MACHINES = 64
HEADROOM = 1.02
"""The cap of a plan's machines over their present prices, which move a little all the time."""


@dataclass(frozen=True)
class Work:
    """What there is to do."""

    tracks: int
    seconds: float
    known: int
    """Of how many tracks the length is told by their headers; the rest is a guess."""


@dataclass(frozen=True)
class Plan:
    """So many machines of one kind."""

    cloud: str
    gpu: str
    count: int
    usd_per_hour: float
    """Of all of them."""
    cap: float
    """What each may cost an hour, when it comes to renting."""
    realtime: float
    """Seconds of audio a second of each."""
    measured: bool
    hours: float
    usd: float


def work(lengths: Sequence[Length]) -> Work:
    """The sum of it."""
    known = sum(one.known for one in lengths)
    return Work(len(lengths), sum(one.seconds for one in lengths), known)


def make_plan(
    todo: Work, cloud: str, gpu: str, prices: Sequence[float], preset: str, stems: Iterable[str]
) -> Plan:
    """The plan with one machine for each of these prices, in USD per hour."""
    speed = speed_of(gpu, preset, stems)
    count, usd_per_hour = len(prices), sum(prices)
    boot = boot_of(cloud)
    work_s = todo.seconds / (speed.realtime * count)
    paid_hours = (boot.seconds - boot.free + work_s) / 3600
    return Plan(
        cloud=cloud,
        gpu=gpu,
        count=count,
        usd_per_hour=round(usd_per_hour, 4),
        cap=math.ceil(max(prices) * HEADROOM * 1000) / 1000,
        realtime=round(speed.realtime, 2),
        measured=speed.measured,
        hours=(boot.seconds + work_s) / 3600,
        usd=paid_hours * usd_per_hour,
    )


def make_plans(
    todo: Work,
    offers: Mapping[str, Sequence[Offer]],
    preset: str,
    stems: Iterable[str],
    counts: Iterable[int] | None = None,
) -> list[Plan]:
    """Every plan that the markets allow, the cheapest first.

    Args:
        todo: What there is to do.
        offers: By cloud, what could be rented now.
        preset: The preset of all tracks.
        stems: What is wanted of each; empty: all stems.
        counts: Consider these numbers of machines alone; None: all that are of use.
    """
    stems = tuple(stems)
    useful = max(1, min(MAX_MACHINES, int(todo.seconds / SHARE_S)))
    plans: list[Plan] = []
    for cloud, listed in offers.items():
        for gpu in dict.fromkeys(offer.gpu for offer in listed):
            kind = [offer for offer in listed if offer.gpu == gpu and offer.gpu_count == 1]
            prices = _prices(kind, max(counts or (useful,)))
            plans.extend(
                make_plan(todo, cloud, gpu, prices[:count], preset, stems)
                for count in counts or range(1, len(prices) + 1)
                if 0 < count <= len(prices)
            )
    return sorted(plans, key=lambda plan: (plan.usd, plan.hours))


def _prices(kind: Sequence[Offer], wanted: int) -> list[float]:
    """Of the cheapest machines of a kind.

    A cloud that does not tell its machines apart offers one kind as often as there is room for.
    """
    if any(not offer.host for offer in kind):
        return [min(offer.usd_per_hour for offer in kind)] * wanted
    return sorted(offer.usd_per_hour for offer in kind)[:wanted]


def choose(plans: Sequence[Plan], by_hours: float | None, budget: float | None) -> Plan:
    """The plan to take: within both limits the cheapest; with a budget alone, the fastest.

    Raises:
        InputError: none is within them; says how near the nearest comes.
    """
    within = [plan for plan in plans if budget is None or plan.usd <= budget]
    if not within:
        least = min(plans, key=lambda plan: plan.usd)
        raise InputError(
            f"no plan costs ${budget:.2f} or less: the cheapest, {in_words(least)}; raise "
            "--budget, or take another preset or fewer songs"
        )
    in_time = [plan for plan in within if by_hours is None or plan.hours <= by_hours]
    if not in_time:
        fastest = min(within, key=lambda plan: plan.hours)
        raise InputError(
            f"no plan ends in {by_hours:.1f} h: the fastest, {in_words(fastest)}; give it more "
            "time, or a higher --budget"
        )
    if budget is not None and by_hours is None:
        return min(in_time, key=lambda plan: (plan.hours, plan.usd))
    return min(in_time, key=lambda plan: (plan.usd, plan.hours))


def worthwhile(plans: Sequence[Plan]) -> list[Plan]:
    """Those for which there is none that is both cheaper and faster, the cheapest first."""
    best: list[Plan] = []
    for plan in sorted(plans, key=lambda plan: (plan.usd, plan.hours)):
        if not best or plan.hours < best[-1].hours * 0.95:
            best.append(plan)
    return best


def in_words(plan: Plan) -> str:
    """A plan in one line, for people."""
    return (
        f"{plan.count} × {plan.gpu} on {plan.cloud}, takes {hours(plan.hours)} "
        f"and costs ${plan.usd:.2f}"
    )


def hours(value: float) -> str:
    """A time in hours, for people."""
    minutes = max(1, round(value * 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def until(text: str, now: datetime) -> float:
    """The hours that ``--by`` leaves: ``3h``, ``90m``, ``18:30``, or a date and time.

    Raises:
        InputError: it is none of these, or over already.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(h|m|min)", text.strip()):
        amount = float(match.group(1))
        return amount if match.group(2) == "h" else amount / 60
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text.strip()):
            clock = datetime.strptime(text.strip(), "%H:%M")  # noqa: DTZ007 - the user's own clock
            end = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
            end += timedelta(days=1) if end <= now else timedelta()
        else:
            end = datetime.fromisoformat(text.strip())
            end = end if end.tzinfo or not now.tzinfo else end.replace(tzinfo=now.tzinfo)
    except ValueError:
        raise InputError(
            f"--by {text}: give hours (3h), minutes (90m), a time (18:30) or a date and time "
            "(2030-01-31T18:30)"
        ) from None
    left = (end - now).total_seconds() / 3600
    if left <= 0:
        raise InputError(f"--by {text}: that is over already")
    return left
