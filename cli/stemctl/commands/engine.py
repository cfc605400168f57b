"""`stemctl engine`: get the Pulumi engine, and say where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stemctl.options import JsonOption

if TYPE_CHECKING:
    from stemctl.engine import Engine


def register(app: typer.Typer) -> None:
    """Add the group of commands to the app."""
    group = typer.Typer(no_args_is_help=True, help="The Pulumi engine: install it, find it.")
    group.command()(install)
    group.command()(path)
    group.command()(env)
    app.add_typer(group, name="engine")


def install(as_json: JsonOption = False) -> None:
    """Make `pulumi` usable here: the one on PATH, else the official release, else from source."""
    from stemctl.engine.install import install_engine

    engine = install_engine()
    show(engine, as_json=as_json, line=f"Pulumi {engine.version}, {engine.origin}: {engine.pulumi}")


def path(as_json: JsonOption = False) -> None:
    """Show where the engine's `pulumi` is."""
    from stemctl.engine import find_engine

    engine = find_engine()
    show(engine, as_json=as_json, line=str(engine.pulumi))


def env(as_json: JsonOption = False) -> None:
    """Show what a shell needs to use it: `eval "$(stemctl engine env)"`."""
    import shlex

    from stemctl.engine import find_engine

    engine = find_engine()
    lines = [f"export {name}={shlex.quote(value)}" for name, value in engine.variables().items()]
    show(engine, as_json=as_json, line="\n".join(lines))


def show(engine: Engine, *, as_json: bool, line: str) -> None:
    """Print an engine, for people or for machines."""
    import json

    if not as_json:
        print(line)
        return
    facts = {"version": engine.version, "origin": engine.origin, "pulumi": str(engine.pulumi)}
    print(json.dumps({**facts, "environment": engine.variables()}))
