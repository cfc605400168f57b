"""The commands of `stemserve`: each module reads a command line and calls what does the work.

A module has a function ``register(app: typer.Typer) -> None``. At its top it imports nothing but
typer, the standard library and `stemserve.commands.frame`, because every start of `stemserve serve`
imports all of them.
"""
