"""`stemserve serve`: the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(serve)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
    socket_fd: Annotated[
        int | None, typer.Option(help="A listening TCP socket inherited from the parent.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where jobs, inputs and results are kept.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="The worker's name, for people.")] = None,
    preset: Annotated[str | None, typer.Option(help="Preset of a job that names none.")] = None,
    queue_limit: Annotated[int | None, typer.Option(help="Jobs that may wait.")] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="any|granted", help="Refuse presets whose weights carry no grant."),
    ] = None,
) -> None:
    """Serve on one port. Every setting is also a STEMSERVE_… variable; secrets only are that."""
    from stemserve.logs import configure
    from stemserve.server import serve
    from stemserve.settings import Settings

    settings = Settings.load(
        host=host,
        port=port,
        socket_fd=socket_fd,
        data_dir=data_dir,
        label=label,
        preset=preset,
        queue_limit=queue_limit,
        licence=licence,
    )
    configure(settings.log, settings.secrets())
    serve(settings)
