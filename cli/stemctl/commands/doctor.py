"""`stemctl doctor`: what is wrong, and what to do."""

from __future__ import annotations

import typer

from stemctl.options import EndpointOption, JsonOption, ProjectOption, StackOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(doctor)


def doctor(
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at the engine, the project, the stack and every worker, and say what to do.

    Exit code 1: something is wrong.
    """
    from stemctl.console import print_json
    from stemctl.doctor import examine

    findings = examine(project, stack, endpoint or ())
    if as_json:
        print_json({"findings": [vars(finding) for finding in findings]})
    else:
        for finding in findings:
            print(f"{'✓' if finding.ok else '✗'} {finding.check}: {finding.detail}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
