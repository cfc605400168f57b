"""Defaults of one's own, from ``stemctl.toml``: the project's before the user's.

The project's is the nearest upward from here, the user's lies in the user's configuration folder.
What stands there is used where neither the command line nor the environment says anything.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from platformdirs import user_config_path

from stemctl.asked.words import unknown
from stemctl.errors import InputError

FILE = "stemctl.toml"


class Kind(StrEnum):
    """What a key holds, in the words of a message."""

    TEXT = "a text"
    TRUTH = "true or false"
    LIST = "a list of texts"


@dataclass(frozen=True)
class Default:
    """A key's value, and the file that it is from."""

    value: str | bool | list[str]
    file: Path


def read_defaults(table: str, keys: Mapping[str, Kind]) -> dict[str, Default]:
    """What the files say under ``[table]``, by key; ``keys`` are those that there are.

    Raises:
        InputError: a file cannot be read or has what there is not; the message names it.
    """
    defaults: dict[str, Default] = {}
    for file in files():
        for key, value in _read(file, table).items():
            if key not in keys:
                raise InputError(f"{file}: {unknown(f'key in [{table}]', key, list(keys))}")
            defaults[key] = Default(_checked(value, keys[key], f"{file}: {table}.{key}"), file)
    return defaults


def files() -> list[Path]:
    """The files that there are, the one that counts more behind."""
    here = Path.cwd()
    project = (folder / FILE for folder in (here, *here.parents))
    found = [user_config_path("stemctl") / FILE, next((f for f in project if f.is_file()), None)]
    return [file for file in found if file and file.is_file()]


def _read(file: Path, table: str) -> dict[str, object]:
    try:
        document = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{file} is no TOML: {error}") from None
    for name in document:
        if name != table:
            raise InputError(f"{file}: {unknown('table', name, [table])}")
    found = document.get(table, {})
    if not isinstance(found, dict):
        raise InputError(f"{file}: {table} is no table: write [{table}]")
    return found


def _checked(value: object, kind: Kind, where: str) -> str | bool | list[str]:
    if isinstance(value, bool) and kind is Kind.TRUTH:
        return value
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        if kind is Kind.TEXT:
            return str(value)
        if kind is Kind.LIST:
            return [str(value)]
    if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
        if kind is Kind.LIST:
            return list(value)
        if kind is Kind.TEXT:
            return ",".join(value)
    raise InputError(f"{where}: give {kind}")
