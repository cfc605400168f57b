"""`stemctl runs` and `stemctl report`: what was done into an output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemctl.options import JsonOption

OutOption = Annotated[
    Path, typer.Option("--out", help="The output folder of the runs.", show_default=True)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(runs)
    app.command()(report)


def runs(out: OutOption = Path("stems"), as_json: JsonOption = False) -> None:
    """Show the runs into an output folder, the newest first."""
    import time

    from stemctl.console import print_json, print_table
    from stemctl.places.bucket import kept_in
    from stemctl.telling.history import read_runs

    found = read_runs(kept_in(out))
    if as_json:
        print_json({"runs": found})
        return
    columns = ["run", "began", "", "tracks", "done", "there", "failed", "left", "min", "$"]
    print_table(
        [*columns, "command"],
        (
            [
                one["run"],
                time.strftime("%Y-%m-%d %H:%M", time.localtime(one["began"])),
                one["state"],
                *(one[name] for name in ("tracks", "done", "there", "failed", "left")),
                one["seconds"] / 60,
                one["usd"],
                one["command"],
            ]
            for one in found
        ),
    )


def report(
    run: Annotated[
        int | None, typer.Argument(metavar="RUN", help="As `stemctl runs` has it. Default: last.")
    ] = None,
    out: OutOption = Path("stems"),
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with the fleet's timeline."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run has done: each track's worker, time, cost and tries, and what all came to.

    It can be asked while the run goes on, and of one that was killed.
    """
    from stemctl.console import print_json, print_table
    from stemctl.errors import InputError
    from stemctl.places.bucket import kept_in
    from stemctl.telling.history import read_run
    from stemctl.telling.timeline import TRACKS, page, summary, track_row

    found = read_run(kept_in(out), run)
    if html is not None:
        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise InputError(f"--html {html} cannot be written: {error.strerror}") from error
    if as_json:
        print_json(found.as_json())
        return
    print_table([*TRACKS, "why not"], ([*track_row(t), t["error"]] for t in found.tracks))
    for worker in found.workers:
        if worker["aside"]:
            print(f"worker {worker['slot']} was set aside: {worker['aside']}")
    print(f"run {found.about['run']}, {found.about['state']}: {found.about['command']}")
    for name, value in summary(found.totals):
        print(f"{name:10} {value}")
