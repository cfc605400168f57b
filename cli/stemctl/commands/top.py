"""`stemctl top`: the fleet at work, as it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption

if TYPE_CHECKING:
    from rich.console import Group

    from stemctl.top import Row, Running


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(top)


def top(
    out: Annotated[
        Path, typer.Option("--out", help="The output folder of the run to tell of.")
    ] = Path("stems"),
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.5, help="How often to look.")
    ] = 2.0,
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the workers, their queues and costs, and when the run in OUT will be done.

    On a terminal it goes on until Ctrl-C; elsewhere, and with --json, it tells once. Exit code 1:
    some workers do not answer; 2: none does.
    """
    import time

    import anyio
    from rich.console import Console
    from rich.live import Live

    from stemctl.console import WIDE, print_json
    from stemctl.fleet.stack import find_fleet
    from stemctl.places.bucket import kept_in
    from stemctl.top import as_json as in_json
    from stemctl.top import look, running

    fleet = find_fleet(project, stack, endpoint or ())
    console = Console(highlight=False)
    if console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(_shown(anyio.run(look, fleet), running(kept_in(out))), refresh=True)
                time.sleep(every)
    rows = anyio.run(look, fleet)
    if as_json:
        print_json(in_json(rows, running(kept_in(out))))
    else:
        console.width = WIDE
        console.print(_shown(rows, running(kept_in(out))))
    answered = sum(row.status is not None for row in rows)
    if answered < len(rows):
        raise typer.Exit(1 if answered else 2)


def _shown(rows: list[Row], run: Running | None) -> Group:
    from rich.console import Group
    from rich.text import Text

    from stemctl.console import table
    from stemctl.money.quote import hours

    columns = ["worker", "gpu", "", "track", "%", "left", "queue", "done", "$/h", "$"]
    lines: list[tuple[object, ...]] = []
    for row in rows:
        about, job = row.endpoint, row.job
        eta = job.details.eta_seconds if job else None
        lines.append(
            (
                about.slot,
                about.gpu,
                row.state,
                row.error or (job and job.input_name),
                job and round(job.details.percent),
                eta and hours(eta / 3600),
                row.status and row.status.pending_jobs,
                row.status and row.status.completed_jobs,
                f"{about.usd_per_hour:.2f}",
                f"{row.usd:.2f}",
            )
        )
    total = f"{len(rows)} workers, ${sum(row.endpoint.usd_per_hour for row in rows):.2f}/h, "
    total += f"${sum(row.usd for row in rows):.2f} since they started"
    if run:
        total += f"; run {run.number}: {run.ended} of {run.tracks} tracks, ${run.usd:.2f}"
        if run.left_seconds is not None:
            total += f", done in about {hours(run.left_seconds / 3600)}"
    return Group(table(columns, lines), Text(total))
