"""`stemserve`: the worker's command line. Only wires."""

from __future__ import annotations

import typer

from stemserve.commands import compare, health, openapi, separate, serve, weights
from stemserve.commands.frame import Commands

app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def stemserve() -> None:
    """The worker: separates songs into stems, over HTTP."""


for module in (serve, separate, compare, weights, health, openapi):
    module.register(app)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
