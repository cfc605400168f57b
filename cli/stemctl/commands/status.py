"""`stemctl status`: what the workers are doing."""

from __future__ import annotations

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(status)


def status(
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each worker is doing, and which presets it can serve.

    Exit code 1: some workers do not answer; 2: none does.
    """
    import anyio

    from stemctl.console import print_json, print_table
    from stemctl.fleet.stack import find_fleet
    from stemctl.worker.probe import probe_fleet

    probes = anyio.run(probe_fleet, find_fleet(project, stack, endpoint or ()))
    if as_json:
        print_json({"workers": [probe.model_dump(mode="json") for probe in probes]})
    else:
        columns = ["worker", "ready", "device", "pending", "active", "done", "version", "presets"]
        rows: list[tuple[object, ...]] = []
        for probe in probes:
            name, said = probe.endpoint.slot, probe.status
            if said is None:
                rows.append((name, False, None, None, None, None, None, probe.error))
                continue
            presets = [preset.name for preset in said.presets if preset.available]
            counts = (f"{said.pending_jobs}/{said.queue_limit}", said.active_jobs)
            facts = (*counts, said.completed_jobs, said.version, ", ".join(presets))
            rows.append((name, probe.ready, said.device, *facts))
        print_table(columns, rows)
    answered = sum(probe.status is not None for probe in probes)
    if answered < len(probes):
        raise typer.Exit(1 if answered else 2)
