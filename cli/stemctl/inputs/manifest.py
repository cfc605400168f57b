"""Manifests: a table of inputs, each row with wishes of its own. CSV with a header, or JSON lines.

Every row is read before anything is begun, and all that cannot be are told at once: a list of ten
thousand is mended in one go, and a run never turns out to have been a part of what was meant.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stemctl.asked.naming import printable
from stemctl.asked.wishes import WISHES, Wishes, read_wishes
from stemctl.asked.words import unknown
from stemctl.errors import InputError

SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("input", *WISHES)
SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Row:
    """One row."""

    input: str
    """As on the command line; a path is meant from the manifest's folder."""
    wishes: Wishes
    where: str
    """The file and the line, for people."""


def read_manifest(path: Path, base: Wishes) -> list[Row]:
    """The rows of a manifest; what one leaves empty is as in ``base``.

    Raises:
        InputError: it cannot be read, or some rows cannot be used: all are named.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a manifest's name ends in {' or '.join(SUFFIXES)}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: is not UTF-8: save it as UTF-8") from None
    cells = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    rows: list[Row] = []
    wrong: list[str] = []
    for line, row in cells(text):
        where = f"{path}, line {line}"
        try:
            if isinstance(row, InputError):
                raise row
            rows.append(_row(row, base, where))
        except InputError as error:
            wrong.append(f"{where}: {error}")
    if wrong:
        many = "a row" if len(wrong) == 1 else f"{len(wrong)} rows"
        raise InputError("\n  ".join([f"nothing is begun, for {many} cannot be used:", *wrong]))
    if not rows:
        raise InputError(f"{path} has no rows")
    return rows


def _row(cells: Mapping[str, object], base: Wishes, where: str) -> Row:
    said: dict[str, str | bool | None] = {}
    for column, value in cells.items():
        name = column.strip().lower().replace("_", "-")
        if name not in COLUMNS:
            raise InputError(unknown("column", printable(name), COLUMNS))
        if name in said:
            raise InputError(f"two values for {name}")
        said[name] = _said(name, value)
    given = said.pop("input", None)
    if not isinstance(given, str) or not given:
        raise InputError("has no input")
    return Row(given, read_wishes(said, base), where)


def _said(name: str, value: object) -> str | bool | None:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    if not isinstance(value, str | bool | int | float | None):
        raise InputError(f"{name}: give a text")
    return value if isinstance(value, bool | None) else str(value).strip()


Cells = Iterator[tuple[int, Mapping[str, object] | InputError]]


def _csv_rows(text: str) -> Cells:
    """Each row with the line it begins on; the header tells the separator."""
    header, _, _ = text.partition("\n")
    separator = max(SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, InputError(f"is no CSV ({error})")
            return
        if cells is None:
            return
        if columns is None:
            columns = cells
            doubled = {name for name in cells if cells.count(name) > 1}
            if "input" not in {name.strip().lower() for name in cells} or doubled:
                told = f"columns {', '.join(map(printable, cells))}"
                yield line, InputError(f"the header needs input, and each column once; has {told}")
                return
        elif any(cell.strip() for cell in cells):
            extra = [cell for cell in cells[len(columns) :] if cell.strip()]
            if extra:
                yield line, InputError(f"has {len(cells)} cells for {len(columns)} columns")
            else:
                yield line, dict(zip(columns, cells, strict=False))
        line = reader.line_num + 1


def _json_rows(text: str) -> Cells:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield number, InputError("is no JSON")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, InputError('is no object, such as {"input": "song.flac"}')
