"""Which files of weights there are, which presets use them, and which are on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from stemserve.errors import UnknownNameError
from stemserve.names import nearest
from stemserve.separation.presets import PRESETS
from stemserve.weights import records
from stemserve.weights.files import WeightFile, is_expected, size_fault
from stemserve.weights.registry import registry


class State(StrEnum):
    """How a file is on this machine, as far as that is known without reading it."""

    MISSING = "missing"
    UNREAD = "unread"
    """It is here, and has not been read since it last changed."""
    VERIFIED = "verified"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Row:
    """One file."""

    file: WeightFile
    presets: tuple[str, ...]
    state: State
    path: str | None


def inventory(files: Iterable[WeightFile]) -> list[Row]:
    """How each file is."""
    rows = []
    for file in files:
        path = file.find()
        users = tuple(name for name, recipe in PRESETS.items() if file in recipe.weights)
        rows.append(Row(file, users, _state(file), str(path) if path else None))
    return rows


def chosen(names: Sequence[str]) -> list[WeightFile]:
    """The files of presets, and those of that published name; all there are, when none is named.

    Raises:
        UnknownNameError: a name is neither.
    """
    known = dict.fromkeys(
        [*(file for recipe in PRESETS.values() for file in recipe.weights)]
        + [WeightFile(name) for name in registry()]
    )
    if not names:
        return list(known)
    by_file = {file.published: (file,) for file in known}
    by_name = {name: recipe.weights for name, recipe in PRESETS.items()} | by_file
    for name in names:
        if name not in by_name:
            choices = nearest(name, by_name)
            raise UnknownNameError(
                f"There is no preset or file of weights named {name}; "
                f"the nearest is {choices[0]}. See: stemserve weights list",
                choices,
            )
    return list(dict.fromkeys(file for name in names for file in by_name[name]))


def facts(row: Row) -> dict[str, object]:
    """A row as JSON."""
    entry = row.file.entry
    known = asdict(entry) if entry else {"licence": asdict(row.file.licence)}
    return {
        **known,
        "file": row.file.published,
        "presets": list(row.presets),
        "state": row.state,
        "path": row.path,
    }


def terms(rows: Iterable[Row]) -> list[str]:
    """What is known of the licences that the rows name, a line each."""
    licences = dict.fromkeys(row.file.licence for row in rows)
    return [f"{x.name}: {x.says} ({', '.join(x.sources)})" for x in licences if not x.granted]


def _state(file: WeightFile) -> State:
    path = file.find()
    if path is None:
        return State.MISSING
    if size_fault(file, path):
        return State.DAMAGED
    known = records.recorded(path)
    if known is None:
        return State.UNREAD
    return State.VERIFIED if is_expected(file, path, known) else State.DAMAGED
