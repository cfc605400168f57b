"""`stemctl run`: songs in, stems out, and everything in between by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemctl.options import (
    BudgetOption,
    ByOption,
    GpuOption,
    JsonOption,
    MaxPriceOption,
    ProjectOption,
    SpotOption,
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(run)


def run(
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE|FOLDER|URL]...", help="As for submit.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="The stems go to OUT/track/stem.format.")
    ] = Path("stems"),
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Default: ensemble; on this machine alone, center."),
    ] = None,
    stems: Annotated[
        str | None,
        typer.Option("--stems", metavar="A,B", help="Default: vocals and instrumental."),
    ] = None,
    stem_format: Annotated[
        str, typer.Option("--format", help="wav, flac, mp3, opus, m4a; stem.mp4 for DJs.")
    ] = "wav",
    cloud: Annotated[
        str | None,
        typer.Option(
            "--cloud",
            metavar="A,B",
            help="vast, runpod; local is this machine. Default: all that rent machines out.",
        ),
    ] = None,
    count: Annotated[
        str,
        typer.Option("--count", metavar="N|auto", help="Machines; auto: as --by and --budget ask."),
    ] = "auto",
    gpu: GpuOption = None,
    max_price: MaxPriceOption = None,
    spot: SpotOption = False,
    image: Annotated[
        str | None,
        typer.Option("--image", envvar="STEMCTL_IMAGE", help="What rented machines run."),
    ] = None,
    by: ByOption = None,
    budget: BudgetOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the machines running afterwards.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Finish the run that was cut off last.")
    ] = False,
    destroy: Annotated[
        bool, typer.Option("--destroy", help="End the machines of runs that were cut off or kept.")
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rent machines, separate these songs on them, and end the machines.

    First comes a quote, and a question. Whatever happens then, the machines are ended and their
    clouds asked whether they are gone; Ctrl-C does the same. After a crash the next call offers to
    finish the run or to end its machines. Exit codes are those of submit; 1 at least, if it is not
    certain that the machines are gone.
    """
    import sys

    from stemctl.console import print_json
    from stemctl.errors import InputError
    from stemctl.inputs.find import read_list
    from stemctl.rented import once
    from stemctl.rented.ephemeral import again, begin, left_behind
    from stemctl.rented.order import make_order

    if destroy:
        ended = once.end_all(left_behind(kept=True))
        if as_json:
            print_json({"ended": ended})
        else:
            print(f"ended: {', '.join(ended)}" if ended else "there was nothing to end")
        return
    asks = sys.stdin.isatty() and not yes
    left = left_behind()
    if left and not finish:
        answer = typer.prompt(f"{once.advice(left[-1])}. Which?", err=True) if asks else ""
        if answer == "destroy":
            once.end_all(left)
        elif answer != "finish":
            raise InputError(once.advice(left[-1]))
        finish = answer == "finish"
    if finish:
        if not left:
            raise InputError("there is no run to finish: every one has come to its end")
        opened = again(left[-1])
    else:
        order = make_order(
            read_list(inputs or (), null=False),
            out,
            {"preset": preset, "stems": stems, "format": stem_format},
            clouds=cloud,
            count=count,
            gpus=gpu,
            max_price=max_price,
            spot=spot,
            image=image,
            by=by,
            budget=budget,
            keep=keep,
            project=project,
        )
        typer.echo(order.in_words, err=True)
        if not (yes or (asks and typer.confirm("Go?", err=True))):
            raise InputError("nothing was rented: answer y, or give --yes, to go on")
        opened = begin(order)
    with opened as stack:
        came = once.carry_out(stack, once.separated)
    if as_json:
        print_json(came.as_json())
    else:
        print("\n".join(once.told(came)))
    raise typer.Exit(came.exit_code)
