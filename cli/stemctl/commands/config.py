"""`stemctl config`: which defaults hold, and where each comes from."""

from __future__ import annotations

import typer

from stemctl.options import JsonOption


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(config)


def config(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what `stemctl submit` does unless told otherwise, and where each default comes from.

    A table [submit] in stemctl.toml holds options by their long names. Nearer counts more: the
    command line, the environment, stemctl.toml here or above, the user's stemctl.toml.
    """
    from platformdirs import user_config_path

    from stemctl.config import FILE, files
    from stemctl.configured import ConfiguredCommand
    from stemctl.console import print_json, print_table

    assert context.parent is not None  # noqa: S101
    group = context.parent.command
    command = group.get_command(context.parent, "submit")  # type: ignore[attr-defined]
    assert isinstance(command, ConfiguredCommand)  # noqa: S101
    blank = command.make_context("submit", [], context.parent, resilient_parsing=True)
    defaults = command.defaults()
    rows = []
    for name, option in command.keys().items():
        value, source = option.consume_value(blank, {})
        come = source.name.lower().replace("_", " ")
        if source.name == "DEFAULT_MAP":
            come = str(defaults[name].file)
        elif source.name == "ENVIRONMENT":
            come = str(option.envvar)
        rows.append((name, value if isinstance(value, bool | list | None) else str(value), come))
    user = user_config_path("stemctl") / FILE
    if as_json:
        options = {name: {"value": value, "from": come} for name, value, come in rows}
        print_json(
            {"options": options, "files": [str(file) for file in files()], "user": str(user)}
        )
        return
    print_table(["option", "value", "from"], rows)
    print(f"read: {', '.join(map(str, files())) or 'no file'}; the user's would be {user}")
