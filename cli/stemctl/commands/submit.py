"""`stemctl submit`: songs to the fleet, stems back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemctl.complete import (
    BIT_DEPTHS,
    CLIPS,
    FORMATS,
    LICENCES,
    PRESETS,
    STEMS,
    one_of,
    some_of,
)
from stemctl.configured import ConfiguredCommand
from stemctl.options import (
    BudgetOption,
    EndpointOption,
    JsonOption,
    ProjectOption,
    StackOption,
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(cls=ConfiguredCommand)(submit)


def submit(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|FOLDER|'GLOB'|URL|MANIFEST|-]...",
            help="Songs; of a folder, all in it; '-' reads such a list, one a line. URLs are http, "
            "https, and s3://bucket/key or s3://bucket/folder/.",
        ),
    ] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(
            help="A table of inputs, .csv with a header or .jsonl: input, and what a row has of "
            "its own: preset, stems, format, output, and so on."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Of folders only such names, or paths: '*.flac'."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Of folders no such files and folders: 'live/*'."),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list that '-' reads has NUL between names.")
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="The stems go to OUT/track/stem.format; s3://bucket/prefix: the workers put them"
            " there themselves.",
        ),
    ] = Path("stems"),
    output: Annotated[
        str,
        typer.Option(
            "--output",
            metavar="PATTERN",
            help="Where each stem goes in OUT, such as '{parent}/{track}/{stem}.{ext}'; also {name}"
            " (with suffix), {folders} (below the one given), {preset}. Default: a folder a track.",
        ),
    ] = "",
    preset: Annotated[
        str | None,
        typer.Option("--preset", autocompletion=one_of(PRESETS), help="Default: the workers' own."),
    ] = None,
    stems: Annotated[
        str,
        typer.Option(
            "--stems",
            metavar="A,B",
            autocompletion=some_of(STEMS),
            help="Which stems, or 'all'; no_drums and the like are the mix without. "
            "Default: vocals and instrumental, else all.",
        ),
    ] = "",
    stem_format: Annotated[
        str,
        typer.Option(
            "--format",
            autocompletion=one_of(FORMATS),
            help="wav, flac, mp3, opus, m4a; stem.mp4 for DJs.",
        ),
    ] = "wav",
    bit_depth: Annotated[
        str | None,
        typer.Option(
            "--bit-depth",
            metavar="16|24|32f",
            autocompletion=one_of(BIT_DEPTHS),
            help="Bits of a sample. Default: 32f (float) for wav, 16 for flac.",
        ),
    ] = None,
    mono: Annotated[bool, typer.Option("--mono", help="One channel.")] = False,
    clip: Annotated[
        str,
        typer.Option(
            metavar="none|rescale|clamp",
            autocompletion=one_of(CLIPS),
            help="Stems beyond full scale: kept where the format can, all turned down, or held.",
        ),
    ] = "none",
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="Fail over a damaged input, or take what can be decoded. Default: the workers'.",
        ),
    ] = None,
    span: Annotated[
        str,
        typer.Option(
            "--range",
            metavar="START-END",
            help="A part of each: 60-90, 1:00-1:30, or 1:00:00- to the end.",
        ),
    ] = "",
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Also separation.json: how the stems were made.")
    ] = False,
    licence: Annotated[
        str,
        typer.Option(
            "--licence",
            metavar="any|granted",
            autocompletion=one_of(LICENCES),
            help="Refuse presets whose weights carry no grant.",
        ),
    ] = "any",
    budget: BudgetOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there from other requests.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and send nothing.")
    ] = False,
    events: Annotated[
        str,
        typer.Option(
            "--events",
            metavar="FILE|-",
            help="Write what happens as it happens, as JSON lines; the last is the report.",
        ),
    ] = "",
    stack: StackOption = "dev",
    project: ProjectOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Separate songs on the fleet's workers, and bring their stems home.

    What is already there from the same request is skipped, so that the same command again does
    only what is left. Ctrl-C once lets the tracks end that are computing, twice stops these too.
    Exit code 0: all tracks are done; 1: some; 2: none; 130: stopped by Ctrl-C.

    A table [submit] in stemctl.toml, here or above or in the user's configuration folder, holds
    other defaults for these options: see `stemctl config`.
    """
    import sys
    from contextlib import nullcontext
    from functools import partial

    import anyio
    from anyio import to_thread

    from stemctl.asked.filter import Filter
    from stemctl.asked.licences import only_granted
    from stemctl.asked.wishes import Wishes, read_wishes
    from stemctl.console import print_json, print_table
    from stemctl.fleet.stack import Fleet, find_fleet
    from stemctl.inputs.find import find_inputs, read_list
    from stemctl.places.bucket import shown
    from stemctl.rented.foresee import foresee
    from stemctl.run import Asked, run
    from stemctl.telling.events import open_events

    wishes = read_wishes(
        {
            "preset": preset,
            "stems": stems,
            "format": stem_format,
            "bit-depth": bit_depth,
            "mono": mono,
            "clip": clip,
            "strict": strict,
            "range": span,
            "sidecar": sidecar,
            "output": output,
        },
        Wishes(),
    )
    asked = Asked(out=out, overwrite=overwrite, granted=only_granted(licence), budget=budget)
    found = find_inputs(
        read_list(inputs or (), null=null),
        out,
        wishes,
        manifests=manifest or (),
        only=Filter(tuple(include or ()), tuple(exclude or ())),
    )
    fleet = find_fleet(project, stack, endpoint or ())
    if dry_run:
        foreseen = anyio.run(foresee, found, fleet, asked)
        if as_json:
            print_json(foreseen.as_json())
        else:
            print_table(["track", "", "MB", "stems", "to, or why not"], foreseen.rows())
            print(foreseen.summary())
        raise typer.Exit(foreseen.exit_code)

    async def look() -> Fleet:
        return await to_thread.run_sync(find_fleet, project, stack)

    with open_events(events) if events else nullcontext() as told:
        begin = partial(run, look=None if endpoint else look, events=told)
        report = anyio.run(begin, found, fleet, asked)
    if as_json and events != "-":
        print_json(report.as_json())
    elif events != "-":
        print_table(
            ["track", "", "worker", "seconds", "× realtime", "stems in, or why not"],
            (
                (o.name, o.end, o.worker, o.seconds, o.realtime, o.error or shown(out, o.place))
                for o in report.outcomes
            ),
        )
        print(report.summary())
        if report.error:
            print(f"stemctl: {report.error}", file=sys.stderr)
    raise typer.Exit(report.exit_code)
