"""The command line's frame: which commands there are, and how an error leaves the program.

A module of commands, ``stemctl.commands.NAME``, has a function ``register(app: typer.Typer) ->
None``, which adds its commands (or its own Typer, for a group of them) to the app. Its name stands
in `COMMANDS`, in the order of ``stemctl --help``. It imports nothing at its top but typer,
`stemctl.options`, `stemctl.errors` and the standard library: whatever is slow to import is imported
in the commands' bodies, because ``stemctl --help`` imports every module of commands.

A command that cannot do what was asked raises a `StemctlError`: here, and only here, it becomes one
line on standard error (with ``--json``, one JSON object on standard output), and exit code 2. A
command that has done a part of it, or has found something wrong, raises ``typer.Exit(1)`` itself,
after it has said what.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from stemctl.errors import StemctlError

COMMANDS = (
    "demo",
    "run",
    "submit",
    "runs",
    "endpoints",
    "status",
    "top",
    "jobs",
    "logs",
    "cancel",
    "offers",
    "quote",
    "sweep",
    "preview_comment",
    "doctor",
    "config",
    "engine",
)

HELP = """Send songs to a fleet of workers, and get their stems.

Exit codes: 0, all of what was asked is done; 1, a part of it is done, or a check found something
wrong; 2, nothing is done: an error, or a command line that cannot be; 130, stopped by Ctrl-C.

With --json a command prints one JSON object on standard output, an error too: {"error": …,
"type": …}.
"""

NOTHING_DONE = 2
"""The exit code of an error: nothing of what was asked is done."""


class _Commands(TyperGroup):
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
            sys.exit(code if isinstance(code, int) else 0)
        except StemctlError as error:
            _show(str(error), error.type, as_json=as_json)
        except TyperException as error:
            _show(error.format_message(), "command-line", as_json=as_json)
        sys.exit(NOTHING_DONE)


def _show(message: str, kind: str, *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps({"error": message, "type": kind}))
    else:
        print(f"stemctl: {message}", file=sys.stderr)


def create_app() -> typer.Typer:
    """The whole command line, freshly made."""
    app = typer.Typer(
        cls=_Commands,
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=HELP)(_root)
    for name in COMMANDS:
        importlib.import_module(f"stemctl.commands.{name}").register(app)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("stemfleet"))
        raise typer.Exit


def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    del version
