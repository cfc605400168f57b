"""`stemctl cancel`: end jobs that wait or run."""

from __future__ import annotations

from typing import Annotated

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(cancel)


def cancel(
    jobs: Annotated[
        list[str] | None, typer.Argument(metavar="JOB...", help="Ids, as `stemctl jobs` has them.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every job that waits or runs, on all workers.")
    ] = False,
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """End jobs that wait or run.

    Exit code 1: some could not be cancelled; 2: none.
    """
    import anyio

    from stemctl.console import print_json, print_table
    from stemctl.errors import InputError
    from stemctl.fleet.stack import find_fleet
    from stemctl.worker.jobs import cancel_jobs, unended_jobs

    if bool(jobs) == every:
        raise InputError("name the jobs to cancel, or give --all")

    async def end() -> dict[str, str | None]:
        fleet = find_fleet(project, stack, endpoint or ())
        return await cancel_jobs(fleet, jobs or await unended_jobs(fleet))

    ended = anyio.run(end)
    if as_json:
        print_json({"jobs": [{"job_id": name, "error": why} for name, why in ended.items()]})
    elif ended:
        print_table(["job", ""], ((name, why or "cancelled") for name, why in ended.items()))
    else:
        print("no job waits or runs")
    wrong = sum(why is not None for why in ended.values())
    if wrong:
        raise typer.Exit(1 if wrong < len(ended) else 2)
