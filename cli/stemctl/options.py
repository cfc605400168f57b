"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StackOption = Annotated[
    str, typer.Option("--stack", envvar="STEMCTL_STACK", help="The Pulumi stack of the fleet.")
]
ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project",
        envvar="STEMCTL_PROJECT",
        help="Its Pulumi project's folder. Default: this folder or the nearest above it.",
    ),
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="A worker to use without any stack; can be repeated. The token is STEMCTL_TOKEN's,"
        " and STEMCTL_CA names the file with its stack's certificate (output ca), if it has one.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]
CloudsOption = Annotated[
    str | None,
    typer.Option("--cloud", metavar="A,B", help="The clouds to look at. Default: all."),
]
GpuOption = Annotated[
    list[str] | None,
    typer.Option("--gpu", metavar="NAME", help="Only such GPUs: 'RTX 4090'; can be repeated."),
]
MaxPriceOption = Annotated[
    float | None,
    typer.Option("--max-price", metavar="USD", min=0, help="Per hour of one machine, at most."),
]
SpotOption = Annotated[
    bool, typer.Option("--spot", help="Interruptible machines: cheaper, and they may vanish.")
]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="TIME", help="When it has to be done: 3h, 90m, 18:30, or a date."),
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget", metavar="USD", min=0, help="What all of it may cost."),
]
