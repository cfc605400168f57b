"""`stemctl sweep`: what was left behind, and is paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemctl.options import JsonOption, ProjectOption

if TYPE_CHECKING:
    from stemctl.fleet.sweep import Found, Survey


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(sweep)


def sweep(
    stack: Annotated[
        list[str] | None,
        typer.Option(
            "--stack",
            help="Only what carries this stack's labels; can be repeated. Machines of a stack that "
            "the state backend does not have are ended only if it is named.",
        ),
    ] = None,
    cloud: Annotated[
        list[str] | None,
        typer.Option("--cloud", metavar="NAME", help="Only this cloud; can be repeated."),
    ] = None,
    destroy: Annotated[bool, typer.Option("--destroy", help="End what is found, if yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find machines that carry the project's labels and are in no stack.

    Asks every cloud whose key is in the environment (VAST_API_KEY, RUNPOD_API_KEY), and this
    machine. Nothing is touched that is in the state of a stack, that is of a stack which cannot be
    read or is being updated, or whose label is none of this project's.

    Exit code 0: nothing is left behind, or all of it was ended; 1: something is, or may be.
    """
    from stemctl.console import print_json
    from stemctl.errors import CloudsError
    from stemctl.fleet.stack import find_project
    from stemctl.fleet.sweep import end, survey

    if destroy and as_json and not yes:
        raise typer.BadParameter("with --json nobody is asked: add --yes", param_hint="--destroy")
    folder = find_project(project)
    seen = survey(folder, stack or (), cloud)
    if not seen.answers.given:
        raise CloudsError("; ".join(seen.answers.refusals))
    ours = [one for one in seen.found if not one.kept]
    if not as_json:
        _show(seen)
        destroy = _is_wanted(ours, destroy=destroy, yes=yes)
    failures = end(folder, ours) if destroy and ours else {}
    if as_json:
        print_json(
            {
                "machines": [
                    _row(one, failures.get(one.machine) if destroy else None) for one in seen.found
                ],
                "skipped": seen.answers.skipped,
                "failed": seen.answers.failed,
                "unread_stacks": seen.state.unread,
            }
        )
    for machine, failure in () if as_json else failures.items():
        typer.echo(f"{machine.label}: {f'NOT ended: {failure}' if failure else 'ended'}")
    done = all(one in failures and not failures[one] for one in (x.machine for x in seen.found))
    if seen.answers.failed or not done:
        raise typer.Exit(1)


def _is_wanted(ours: list[Found], *, destroy: bool, yes: bool) -> bool:
    """Whether these are to be ended; asks, if it may."""
    what = f"End {len(ours)} ({sum(one.machine.usd_per_hour for one in ours):.2f} $/h)"
    if not ours:
        return False
    if not destroy:
        typer.echo(f"{what} with: stemctl sweep --destroy", err=True)
        return False
    return yes or typer.confirm(f"{what}?", err=True)


def _show(seen: Survey) -> None:
    """The machines, and what could not be looked at."""
    import time

    from stemctl.console import print_table

    for line in seen.answers.refusals:
        typer.echo(f"not asked: {line}", err=True)
    for name, reason in seen.state.unread.items():
        typer.echo(f"stack {name} is left alone: {reason}", err=True)
    if not seen.found:
        typer.echo("nothing is left behind")
        return
    columns = ["label", "cloud", "id", "state", "gpu", "$/h", "hours", "kept"]
    rows = [
        (
            one.machine.label,
            one.cloud,
            one.machine.id,
            one.machine.state.value,
            one.machine.gpu,
            one.machine.usd_per_hour,
            one.machine.since and round((time.time() - one.machine.since) / 3600, 1),
            one.kept,
        )
        for one in seen.found
    ]
    print_table(columns, rows)


def _row(one: Found, failure: str | None) -> dict[str, Any]:
    """``failure``: None, as it was not to be ended."""
    return {
        "label": one.machine.label,
        "cloud": one.cloud,
        "stack": one.stack,
        "id": one.machine.id,
        "state": one.machine.state.value,
        "gpu": one.machine.gpu,
        "usd_per_hour": one.machine.usd_per_hour,
        "since": one.machine.since,
        "kept": one.kept or None,
        "ended": None if failure is None else not failure,
        "error": failure or None,
    }
