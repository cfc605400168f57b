"""`stemctl offers`: what could be rented now, on all clouds in one table."""

from __future__ import annotations

from typing import Annotated

import typer

from stemctl.options import JsonOption

CloudOption = Annotated[
    list[str] | None,
    typer.Option("--cloud", metavar="NAME", help="Only this cloud; can be repeated."),
]
RANKING = (
    "The cheapest work first: $/work is what it costs to do what an RTX 3090 does in an hour, "
    "the price over the expected speed of all the machine's GPUs (an RTX 3090's is 1)."
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(epilog=RANKING)(offers)


def offers(
    cloud: CloudOption = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option("--gpu", metavar="NAME", help="Only such GPUs: RTX 4090; can be repeated."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=16, help="GPUs of a machine.")] = 1,
    vram_gb: Annotated[
        float | None,
        typer.Option(min=0, help="At least so much for each GPU, as it is sold. Default: 12."),
    ] = None,
    max_usd_per_hour: Annotated[
        float | None, typer.Option(min=0, help="At most, for the whole machine.")
    ] = None,
    reliability: Annotated[
        float | None, typer.Option(min=0, max=1, help="At least, where it is told. Default: 0.97.")
    ] = None,
    verified: Annotated[
        bool | None,
        typer.Option(
            "--verified/--unverified",
            help="Verified hosts, on RunPod the secure cloud; or only the others.",
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Only in this country: SE; can be repeated."),
    ] = None,
    not_region: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Not there; can be repeated.")
    ] = None,
    inet_down_mbps: Annotated[
        float | None, typer.Option(min=0, help="At least, where it is told. Default: 200.")
    ] = None,
    disk_gb: Annotated[
        float | None, typer.Option(min=1, help="With so much disk, in the price. Default: 40.")
    ] = None,
    cuda: Annotated[
        float | None, typer.Option(min=11, help="The driver supports at least this version.")
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Interruptible machines, by bid.")] = False,
    direct_port: Annotated[
        bool, typer.Option("--direct-port", help="Reached directly, not by a proxy.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show what could be rented now, the cheapest work first.

    The conditions are those of a group's `gpu` in the stack's configuration, with the same
    defaults; 0 asks for nothing. A cloud whose key is not in the environment is left out
    (VAST_API_KEY, RUNPOD_API_KEY). Exit code 2: no cloud has offered anything.
    """
    from dataclasses import asdict

    from stemfleet.clouds.base import GpuFilter
    from stemfleet.clouds.offers import RENTED, cost, sold_gb, speed

    from stemctl.console import print_json, print_table
    from stemctl.errors import CloudsError
    from stemctl.fleet.clouds import ask_clouds, markets

    def least(given: float | None, usual: float | None) -> float | None:
        return (usual if given is None else given) or None

    want = GpuFilter(
        names=tuple(gpu or ()),
        count=count,
        vram_gb=least(vram_gb, RENTED.vram_gb),
        max_usd_per_hour=max_usd_per_hour,
        reliability=least(reliability, RENTED.reliability),
        verified=verified,
        regions=tuple(region or ()),
        not_regions=tuple(not_region or ()),
        inet_down_mbps=least(inet_down_mbps, RENTED.inet_down_mbps),
        disk_gb=least(disk_gb, RENTED.disk_gb),
        cuda=cuda,
        spot=spot,
        direct_port=direct_port,
    )
    answers = ask_clouds(cloud or markets(), lambda market: market.offers(want))
    if not any(answers.given.values()):
        raise CloudsError("; ".join(answers.refusals) or "nothing is offered")
    found = sorted(
        ((name, offer) for name, listed in answers.given.items() for offer in listed),
        key=lambda row: cost(row[1]),
    )
    shown = found[:limit]
    if as_json:
        rows = [
            {"cloud": name, **asdict(offer), "speed": speed(offer), "usd_per_work": cost(offer)}
            for name, offer in shown
        ]
        refused = {**answers.skipped, **answers.failed}
        print_json({"offers": rows, "found": len(found), "refused": refused})
        return
    columns = [
        "cloud",
        "gpu",
        "count",
        "VRAM GB",
        "$/h",
        "region",
        "reliability",
        "speed",
        "$/work",
    ]
    print_table(
        columns,
        [
            (
                name,
                one.gpu,
                one.gpu_count,
                one.vram_gb and sold_gb(one.vram_gb),
                f"{one.usd_per_hour:.3f}",
                one.region,
                one.reliability and f"{one.reliability:.3f}",
                speed(one),
                f"{cost(one):.3f}",
            )
            for name, one in shown
        ],
    )
    typer.echo(f"{len(shown)} of {len(found)} offers. {RANKING}", err=True)
    for line in answers.refusals:
        typer.echo(f"left out: {line}", err=True)
