"""`stemserve openapi`: the HTTP contract, as OpenAPI or for people to read."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(openapi)


def openapi(
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page to read.")] = False,
) -> None:
    """Print the contract of a worker that asks for a token."""
    from pydantic import SecretStr

    from stemserve.web import reference
    from stemserve.web.app import create_app

    document = create_app(SecretStr("any")).openapi()
    page = reference.markdown(document) if markdown else json.dumps(document, indent=2) + "\n"
    typer.echo(page, nl=False)
