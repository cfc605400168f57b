"""`stemctl preview-comment`: what a change of the fleet would do, for those who review it."""

from __future__ import annotations

from typing import Annotated

import typer

from stemctl.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("preview-comment")(preview_comment)


FAILED = 3
"""The exit code for a preview that has failed: above the cap, a wrong configuration, …"""


def preview_comment(
    file: Annotated[
        typer.FileText,
        typer.Argument(metavar="FILE|-", help="What `pulumi preview --json` has printed."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Tell in Markdown what a preview would change: machines, reasons, and $/h at most.

    It asks nobody and needs no key. Exit code 3: the preview has failed, as it does when the fleet
    might cost more than its cap; the comment says why.
    """
    from dataclasses import asdict

    from stemctl.console import print_json
    from stemctl.fleet.comment import comment
    from stemctl.fleet.preview import read_preview

    preview = read_preview(file.read())
    if as_json:
        print_json(
            {
                **asdict(preview),
                "usd_before": preview.usd_before,
                "usd_after": preview.usd_after,
                "comment": comment(preview),
            }
        )
    else:
        print(comment(preview), end="")
    if preview.errors:
        raise typer.Exit(FAILED)
