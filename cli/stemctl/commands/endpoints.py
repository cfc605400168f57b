"""`stemctl endpoints`: what the fleet consists of."""

from __future__ import annotations

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(endpoints)


def endpoints(
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the fleet's workers: where they are, what they are, what they cost."""
    import anyio

    from stemctl.console import print_json, print_table
    from stemctl.probe import probe_fleet
    from stemctl.stack import find_fleet

    fleet = find_fleet(project, stack, endpoint or ())
    probes = anyio.run(probe_fleet, fleet)
    if as_json:
        listed = [{**probe.endpoint.model_dump(), "alive": probe.alive} for probe in probes]
        print_json({"endpoints": listed, "usd_per_hour": fleet.usd_per_hour})
        return
    rows = [
        (e.slot, e.url, e.cloud, e.gpu, e.region, e.usd_per_hour, probe.alive)
        for probe in probes
        for e in [probe.endpoint]
    ]
    print_table(["slot", "url", "cloud", "gpu", "region", "$/h", "alive"], rows)
