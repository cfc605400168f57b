"""`stemctl quote`: what a run would cost, before anything is rented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemctl.options import (
    BudgetOption,
    ByOption,
    CloudsOption,
    GpuOption,
    JsonOption,
    MaxPriceOption,
    SpotOption,
)

SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(quote)


def quote(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILE|FOLDER|URL...", help="As for submit.")
    ],
    preset: Annotated[str, typer.Option("--preset", help="Of all songs.")] = "ensemble",
    stems: Annotated[
        str, typer.Option("--stems", metavar="A,B", help="Default: vocals and instrumental.")
    ] = "vocals,instrumental",
    cloud: CloudsOption = None,
    gpu: GpuOption = None,
    max_price: MaxPriceOption = None,
    spot: SpotOption = False,
    by: ByOption = None,
    budget: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what separating these songs on rented machines would cost, and how long it would take.

    From the songs' lengths, today's offers, and the speed of each GPU: as measured in your own
    runs, else as expected. It rents nothing. Exit code 1: no cloud has told its prices.
    """
    from dataclasses import asdict

    from stemctl.console import print_json, print_table
    from stemctl.money.market import ask_market, quoted
    from stemctl.money.quote import choose, hours, in_words, worthwhile

    wish = ask_market(cloud, gpu, max_price, spot=spot, by=by, budget=budget)
    found = quoted(inputs, Path("stems"), preset, stems, wish)
    refused = wish.refusals
    chosen = choose(found.plans, wish.by_hours, budget) if found.plans else None
    shown = worthwhile(found.plans)[:SHOWN]
    if chosen and chosen not in shown:
        shown.append(chosen)
    if as_json:
        print_json(
            {
                "tracks": found.work.tracks,
                "audio_seconds": round(found.work.seconds, 1),
                "lengths_known": found.work.known,
                "preset": preset,
                "plan": chosen and asdict(chosen),
                "plans": [asdict(plan) for plan in shown],
                "unusable": [asdict(one) for one in found.unusable],
                "refused": refused,
            }
        )
    else:
        todo = found.work
        guessed = todo.tracks - todo.known
        print(
            f"{todo.tracks} track{'' if todo.tracks == 1 else 's'}, "
            f"{hours(todo.seconds / 3600)} of audio"
            + (f" (of {guessed} the length is a guess)" if guessed else "")
        )
        for one in found.unusable:
            typer.echo(f"left out: {one.name}: {one.reason}", err=True)
        for line in refused:
            typer.echo(f"not asked: {line}", err=True)
        if shown:
            columns = ["cloud", "gpu", "machines", "$/h", "× realtime", "", "time", "$"]
            print_table(
                columns,
                (
                    (
                        plan.cloud,
                        plan.gpu,
                        plan.count,
                        f"{plan.usd_per_hour:.2f}",
                        plan.realtime * plan.count,
                        "measured" if plan.measured else "expected",
                        hours(plan.hours),
                        f"{plan.usd:.2f}",
                    )
                    for plan in shown
                ),
            )
        if chosen:
            print(f"best: {in_words(chosen)}")
    if not found.plans:
        typer.echo("no prices: nothing is offered, or no cloud's key is set", err=True)
        raise typer.Exit(1)
