"""`stemctl jobs`: the jobs of all workers."""

from __future__ import annotations

from typing import Annotated

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(jobs)


def jobs(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="How many of each worker.")
    ] = 50,
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the jobs of all workers, the newest first.

    Exit code 1: some workers do not answer; 2: none does.
    """
    import sys

    import anyio

    from stemctl.console import print_json, print_table
    from stemctl.errors import WorkerError
    from stemctl.fleet.stack import find_fleet
    from stemctl.worker.probe import ask_all

    fleet = find_fleet(project, stack, endpoint or ())
    answers = anyio.run(ask_all, fleet, lambda worker: worker.jobs(limit))
    errors = {e.slot: str(answer) for e, answer in answers if isinstance(answer, WorkerError)}
    listed = [
        {"worker": e.slot, **job.model_dump(mode="json")}
        for e, answer in answers
        if not isinstance(answer, WorkerError)
        for job in answer.jobs
    ]
    listed.sort(key=lambda job: job["created_at"], reverse=True)
    if as_json:
        print_json({"jobs": listed, "errors": errors})
    else:
        keys = ["job_id", "status", "input_name", "preset", "created_at", "completed_at", "worker"]
        print_table(
            ["job", "status", "input", "preset", "created", "completed", "worker"],
            ([job[key] for key in keys] for job in listed),
        )
        for message in errors.values():
            print(f"stemctl: {message}", file=sys.stderr)
    if errors:
        raise typer.Exit(1 if len(errors) < len(answers) else 2)
