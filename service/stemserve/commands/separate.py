"""`stemserve separate`: songs on this machine, by this machine, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemserve.commands.frame import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(separate)


def separate(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE|URL...", help="Songs.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The stems go to DIR/song/stem.format.")
    ] = Path("stems"),
    preset: Annotated[str | None, typer.Option(help="Default: that of STEMSERVE_PRESET.")] = None,
    stems: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="Which, or 'all'; no_drums and the like are the mix without. "
            "Default: vocals and instrumental, else all.",
        ),
    ] = "",
    stem_format: Annotated[
        str,
        typer.Option("--format", help="wav, flac, mp3, opus, m4a; stem.mp4 for DJs."),
    ] = "wav",
    bit_depth: Annotated[
        str | None, typer.Option(metavar="16|24|32f", help="Default: 32f for wav, 16 for flac.")
    ] = None,
    mono: Annotated[bool, typer.Option("--mono", help="One channel.")] = False,
    interval_cut: Annotated[
        str | None, typer.Option(metavar="SECONDS,…", help="Where segments end: 300,600,900.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="FROM-TO", help="A part of each: 60-90, 1:00-1:30, or 1:00:00- to the end."
        ),
    ] = None,
    clip: Annotated[
        str,
        typer.Option(
            metavar="none|rescale|clamp",
            help="Stems beyond full scale: kept where the format can, all turned down, or held.",
        ),
    ] = "none",
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="Fail over a damaged input, or take what can be decoded. "
            "Default: STEMSERVE_STRICT.",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="any|granted", help="Refuse presets whose weights carry no grant."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Separate songs here. What is in the way under the same name is replaced.

    Exit code 0: all songs are done; 1: some; 2: none, or a wrong command line; 128 and more:
    stopped by a signal.
    """
    from stemserve.commands.frame import exit_code, names, print_json
    from stemserve.commands.tracks import separate_all
    from stemserve.errors import RequestError
    from stemserve.schema import parse_range
    from stemserve.settings import Settings

    try:
        span = None if at is None else parse_range(at)
    except ValueError as error:
        raise RequestError(f"--at {error}.") from None
    wishes = {
        "preset": preset,
        "all_stems": stems.strip() == "all" or None,
        "stems": list(names(stems)) or None if stems.strip() != "all" else None,
        "format": stem_format,
        "bit_depth": bit_depth,
        "mono": mono or None,
        "interval_cut": interval_cut,
        "range": span,
        "clip": clip,
        "strict": strict,
    }
    outcomes = separate_all(inputs, out, Settings.load(licence=licence), wishes)
    if as_json:
        print_json({"tracks": [outcome.as_json() for outcome in outcomes]})
    raise typer.Exit(exit_code(sum(o.finished is not None for o in outcomes), len(outcomes)))
