"""`stemctl doctor`: what is wrong, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(doctor)


def doctor(
    out: Annotated[
        Path, typer.Option("--out", help="Where stems would go: is it writable, is there room?")
    ] = Path("stems"),
    preset: Annotated[
        str | None, typer.Option("--preset", help="Can every worker serve it? Default: its own.")
    ] = None,
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the disk, the engine, the project, the stack and every worker, and say what to do.

    Exit code 1: something is wrong.
    """
    from stemctl.console import print_json
    from stemctl.doctor import examine

    findings = examine(project, stack, endpoint or (), out, preset)
    if as_json:
        print_json({"findings": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            print(f"{'✓' if finding.ok else '✗'} {finding.check}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
