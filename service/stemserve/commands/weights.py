"""`stemserve weights`: what the networks' weights are, whether they are here, and bringing them."""

from __future__ import annotations

from typing import Annotated

import typer

from stemserve.commands.frame import JsonOption

_Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="PRESET|FILE...", help="Whose weights; none named: all that are known."),
]


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    group = typer.Typer(no_args_is_help=True, help="The networks' weights on this machine.")
    group.command("list")(list_weights)
    group.command()(fetch)
    group.command()(verify)
    app.add_typer(group, name="weights")


def list_weights(names: _Names = None, as_json: JsonOption = False) -> None:
    """Every file: its presets, size, terms, and whether it is here."""
    from stemserve.commands.frame import print_json
    from stemserve.weights.files import directory
    from stemserve.weights.inventory import chosen, facts, inventory, terms

    rows = inventory(chosen(names or ()))
    if as_json:
        print_json({"directory": str(directory()), "weights": [facts(row) for row in rows]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("file", "presets", "MB", "licence", "here"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for row in rows:
        size = row.file.entry.expected_size if row.file.entry else None
        table.add_row(
            row.file.published,
            ", ".join(row.presets),
            f"{size / 1e6:.1f}" if size else "?",
            row.file.licence.name,
            row.state,
        )
    console = Console()
    console.print(table)
    console.print(f"\nin {directory()}", highlight=False, soft_wrap=True)
    for line in terms(rows):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def fetch(
    names: _Names = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that are known: about 0.8 GB.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask URL/FILE instead of the files' own places. Also: STEMSERVE_WEIGHTS_MIRROR.",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(metavar="any|granted", help="Fetch nothing that carries no grant."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring weights here; what a broken connection left is gone on with, nothing half is used.

    Exit code 0: all are here; 1: some; 2: none.
    """
    from stemserve.commands.frame import exit_code, print_json
    from stemserve.commands.transfers import fetch_all
    from stemserve.weights.files import directory
    from stemserve.weights.inventory import chosen

    if bool(names) == everything:
        raise typer.BadParameter("name presets or files, or give --all")
    outcomes = fetch_all(chosen(names or ()), mirror, licence)
    if as_json:
        print_json({"directory": str(directory()), "weights": [o.as_json() for o in outcomes]})
    elif not outcomes:
        print("No weights are needed for that.")
    raise typer.Exit(exit_code(sum(o.error is None for o in outcomes), len(outcomes)))


def verify(names: _Names = None, as_json: JsonOption = False) -> None:
    """Read through what is here, and hold it against its digests.

    Exit code 0: all is as it should be; 1: some is; 2: nothing is.
    """
    from stemserve.commands.frame import exit_code, print_json
    from stemserve.commands.transfers import verify_all
    from stemserve.weights.files import directory
    from stemserve.weights.inventory import chosen

    files = chosen(names or ())
    if not names:
        files = [file for file in files if file.find()]
    outcomes = verify_all(files)
    if as_json:
        print_json({"directory": str(directory()), "weights": [o.as_json() for o in outcomes]})
    elif not outcomes:
        print(f"There are no weights in {directory()}.")
    raise typer.Exit(exit_code(sum(o.error is None for o in outcomes), len(outcomes)))
