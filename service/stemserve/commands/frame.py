"""The command line's frame: how an error leaves the program, and what tells how far it is.

An error of the user's, or of a thing he named, is one line on standard error (with ``--json``, one
JSON object on standard output) and exit code 2.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from stemserve.errors import StemserveError, StoppedError

ALL_DONE, SOME_DONE, NOTHING_DONE = 0, 1, 2
STOPPED = 128
"""Exit codes; the last with the signal's number added."""

JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output, an error too.")
]


class Commands(TyperGroup):
    """The root of all commands, which shows their errors."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Run the command of the command line ``args``."""
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words[: words.index("--") if "--" in words else None]
        try:
            code = super().main(
                words,
                prog_name,
                complete_var,
                standalone_mode and not as_json,
                windows_expand_args,
                **extra,
            )
            sys.exit(code if isinstance(code, int) else ALL_DONE)
        except StemserveError as error:
            _show(str(error), error.type, as_json=as_json)
            if isinstance(error, StoppedError):
                sys.exit(STOPPED + error.number)
        except TyperException as error:
            _show(error.format_message(), "command-line", as_json=as_json)
        sys.exit(NOTHING_DONE)


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def names(listed: str) -> tuple[str, ...]:
    """The names of ``"a, b"``."""
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def exit_code(done: int, asked: int) -> int:
    """The exit code of a command that has done so many of the things it was asked for."""
    if done == asked:
        return ALL_DONE
    return SOME_DONE if done else NOTHING_DONE


def _show(message: str, kind: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": message, "type": kind}, ensure_ascii=False))
    else:
        print(f"stemserve: {message}", file=sys.stderr)
