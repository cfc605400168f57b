"""`stemctl demo`: a fleet on this machine, one song through it, and nothing left running."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemctl.options import JsonOption, ProjectOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(demo)


def demo(
    project: ProjectOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the stems go. Default: stems, in the project."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try everything on this machine: a fleet, one song, its stems, and the fleet destroyed."""
    import json
    from dataclasses import asdict

    from stemctl.demo import INTERRUPTED, run_demo
    from stemctl.fleet.stack import find_project

    folder = find_project(project).absolute()
    done = run_demo(folder, (out or folder / "stems").absolute())
    if as_json:
        print(json.dumps({**asdict(done), "stems": str(done.stems)}))
    else:
        print()
        for name, seconds in done.seconds.items():
            print(f"  {name:16} {seconds:6.1f} s" + ("  failed" if name == done.failed else ""))
        if done.failed is None:
            print(f"\nThe stems are in {done.stems}:")
            for stem in sorted(done.stems.glob("[!.]*")):
                print(f"  {stem.name:20} {stem.stat().st_size / 1e6:6.2f} MB")
        if done.destroyed:
            print("\nThe fleet is destroyed: nothing is left running.")
    if not done.destroyed:
        typer.echo("The fleet may still run: `pulumi destroy --stack dev` ends it.", err=True)
    if done.interrupted:
        raise typer.Exit(INTERRUPTED)
    if done.failed or not done.destroyed:
        raise typer.Exit(1)
