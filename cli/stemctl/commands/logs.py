"""`stemctl logs`: what a job has to tell."""

from __future__ import annotations

from typing import Annotated

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(logs)


def logs(
    job: Annotated[str, typer.Argument(help="The job's id, as `stemctl jobs` shows it.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the log of a job, on whichever worker it is."""
    import anyio

    from stemctl.console import print_json
    from stemctl.fleet.stack import find_fleet
    from stemctl.worker.jobs import find_job, read_log

    async def show() -> None:
        fleet = find_fleet(project, stack, endpoint or ())
        where = await find_job(fleet, job)
        parts: list[str] = []
        tell = parts.append if as_json else lambda text: print(text, end="", flush=True)
        status = await read_log(where, fleet.token, job, tell, follow=follow)
        if as_json:
            logs = "".join(parts)
            print_json({"job_id": job, "worker": where.slot, "status": status, "logs": logs})

    anyio.run(show)
