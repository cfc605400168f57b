"""What a command leaves on standard output: a table for people, or one JSON object."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 200
"""Columns of a table that goes to no terminal."""


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object, the only thing on standard output."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns' names; None is an empty cell, numbers stand right."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    console.print(table(columns, rows))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The same, to be shown as part of something."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    listed = [list(row) for row in rows]
    for number, name in enumerate(columns):
        cells = [row[number] for row in listed]
        right = any(isinstance(cell, int | float) and cell is not True for cell in cells)
        made.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in listed:
        made.add_row(*(Text(_cell(value)) for value in row))
    return made


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.1f}"
    return str(value)
