"""What a quote or a run asks of the markets, and the plans that their answers allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from stemfleet.clouds.base import Offer
from stemfleet.clouds.offers import RENTED
from stemfleet.clouds.registry import LOCAL

from stemctl.asked.presets import COSTS
from stemctl.asked.wishes import Wishes
from stemctl.asked.words import unknown
from stemctl.errors import InputError
from stemctl.fleet.clouds import ask_clouds, markets
from stemctl.inputs.find import Inputs, Unusable, find_inputs
from stemctl.inputs.headers import song_lengths
from stemctl.money.quote import Plan, Work, make_plans, until, work


@dataclass(frozen=True)
class Market:
    """What could be rented now, by cloud, and what limits the choice."""

    offers: Mapping[str, Sequence[Offer]]
    refusals: list[str]
    """For people: which clouds have told nothing, and why."""
    by_hours: float | None


@dataclass(frozen=True)
class Quoted:
    """What there is to do, and the plans for it."""

    work: Work
    plans: list[Plan]
    unusable: tuple[Unusable, ...]


def clouds_of(text: str | None) -> list[str]:
    """The names in ``vast,runpod``; without any, those of all markets."""
    if text is None:
        return markets()
    return [name.strip() for name in text.split(",") if name.strip()]


def ask_market(
    clouds: str | None,
    gpus: Iterable[str] | None,
    max_price: float | None,
    *,
    spot: bool,
    by: str | None,
    budget: float | None,
) -> Market:
    """Ask the markets among ``clouds`` for what may be rented.

    Raises:
        InputError: there is no such cloud, or a limit is none.
    """
    by_hours = until(by, datetime.now().astimezone()) if by else None
    if budget is not None and budget <= 0:
        raise InputError(f"--budget {budget:g}: give USD, more than 0")
    want = replace(RENTED, names=tuple(gpus or ()), max_usd_per_hour=max_price, spot=spot)
    names = [name for name in clouds_of(clouds) if name != LOCAL]
    answers = ask_clouds(names, lambda market: market.offers(want))
    return Market(answers.given, answers.refusals, by_hours)


def quoted(arguments: Sequence[str], out: Path, preset: str, stems: str, market: Market) -> Quoted:
    """The plans for the songs that the arguments name.

    Raises:
        InputError: there is no song, or no such preset.
    """
    named = tuple(name.strip() for name in stems.split(",") if name.strip())
    found = find_inputs(arguments, out, Wishes(preset=preset, stems=named))
    check_songs(found)
    return quoted_inputs(found, preset, named, market)


def check_songs(found: Inputs) -> None:
    """Raise `InputError` if there is no song among what was found."""
    if not found.songs:
        why = "; ".join(f"{one.name} {one.reason}" for one in found.unusable)
        raise InputError(f"there is nothing to separate: {why}")


def quoted_inputs(
    found: Inputs,
    preset: str,
    stems: Sequence[str],
    market: Market,
    counts: Iterable[int] | None = None,
) -> Quoted:
    """The plans for these songs.

    Raises:
        InputError: nothing is known of what such a preset costs.
    """
    if preset not in COSTS:
        raise InputError(unknown("preset", preset, list(COSTS)))
    todo = work(song_lengths(song.path for song in found.songs))
    return Quoted(
        todo, make_plans(todo, market.offers, preset, stems, counts), tuple(found.unusable)
    )
