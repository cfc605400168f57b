"""`stemserve compare`: presets side by side on the same seconds of a song."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemserve.commands.frame import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(compare)


def compare(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A song.")],
    presets: Annotated[
        str, typer.Option(metavar="A,B,C", help="Which. Default: all that this machine can serve.")
    ] = "",
    at: Annotated[
        str | None,
        typer.Option(metavar="FROM-TO", help="60-90 or 1:00-1:30. Default: 30 s from the middle."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="PAGE", help="The page.")] = Path("compare.html"),
    as_json: JsonOption = False,
) -> None:
    """Write one HTML page to hear, see and measure what presets make of a song.

    What is compared is what each preset gives there of the whole song.

    Exit code 0: all presets are on it; 1: some failed, and it says why; 2: there is no page.
    """
    from stemserve.commands.frame import exit_code, names, print_json
    from stemserve.comparison.wanted import compare_file

    comparison = compare_file(file, names(presets), at, out)
    done = [result for result in comparison.results if result.error is None]
    if as_json:
        print_json(
            {
                "page": str(out.absolute()),
                "start_seconds": comparison.start,
                "seconds": comparison.seconds,
                "device": comparison.device,
                "mix_rms_db": comparison.mix.level.rms_db,
                "presets": [
                    {
                        "preset": result.preset.name,
                        "seconds": result.seconds,
                        "loading_seconds": result.loading_seconds,
                        "residual_rms_db": result.residual and result.residual.rms_db,
                        "rms_db": {stem: c.level.rms_db for stem, c in result.stems.items()},
                        "error": result.error,
                    }
                    for result in comparison.results
                ],
            }
        )
    else:
        print(out)
    raise typer.Exit(exit_code(len(done), len(comparison.results)))
