"""`stemserve health`: whether the worker on this machine answers, for what watches a container."""

from __future__ import annotations

import typer

_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(health)


def health() -> None:
    """Ask the worker that these settings describe whether it is up; they come from STEMSERVE_….

    Exit code 0: it answers; 1: it does not.
    """
    import ssl
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    from stemserve.settings import Settings

    settings = Settings.load()
    if settings.tls_cert is None:
        connection = HTTPConnection("127.0.0.1", settings.port, timeout=_SECONDS)
    else:  # its certificate is for other names, and nothing secret is sent
        context = ssl._create_unverified_context()  # noqa: S323, SLF001
        connection = HTTPSConnection("127.0.0.1", settings.port, timeout=_SECONDS, context=context)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        typer.echo(f"no worker answers on port {settings.port}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"the worker on port {settings.port} answers {status}")
    raise typer.Exit(0 if status == 200 else 1)
