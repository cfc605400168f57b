"""`stemctl endpoints`: what the fleet consists of."""

from __future__ import annotations

from typing import Annotated

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(endpoints)


def endpoints(
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Ask the clouds where the machines are now; needs the clouds' keys."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the fleet's workers: where they are, what they are, what they cost."""
    import anyio

    from stemctl.console import print_json, print_table
    from stemctl.fleet.stack import find_fleet, find_project
    from stemctl.worker.probe import probe_fleet

    fleet = find_fleet(project, stack, endpoint or ())
    states: dict[str, str] = {}
    if live:
        from stemctl.fleet.live import resolve

        if endpoint:
            raise typer.BadParameter("no cloud knows an --endpoint", param_hint="--live")
        fleet, states, refusals = resolve(fleet, find_project(project), stack)
        for line in refusals:
            typer.echo(f"not asked: {line}", err=True)
    probes = anyio.run(probe_fleet, fleet)
    if as_json:
        listed = [
            {**probe.endpoint.model_dump(), "alive": probe.alive}
            | ({"state": states[probe.endpoint.slot]} if live else {})
            for probe in probes
        ]
        print_json({"endpoints": listed, "usd_per_hour": fleet.usd_per_hour})
        return
    rows = [
        (e.slot, e.url, e.cloud, e.gpu, e.region, e.usd_per_hour, probe.alive, states.get(e.slot))
        for probe in probes
        for e in [probe.endpoint]
    ]
    columns = ["slot", "url", "cloud", "gpu", "region", "$/h", "alive", "state"]
    width = len(columns) if live else len(columns) - 1
    print_table(columns[:width], [row[:width] for row in rows])
