"""A command whose options take their defaults from ``stemctl.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperOption

if TYPE_CHECKING:
    from stemctl.config import Default

NOT_THERE = frozenset({"help", "json", "dry-run", "manifest", "null", "endpoint", "project"})
"""What no file decides: inputs, how a command answers, and whom it gives the token."""


class ConfiguredCommand(TyperCommand):
    """The command of a function; the table in the file has the command's name."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,  # noqa: ANN401 (as in typer)
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Parse the command line; an option that it lacks is as in the files."""
        if not {"-h", "--help"} & set(args):
            keys = self.keys()
            extra["default_map"] = {
                keys[name].name: default.value for name, default in self.defaults().items()
            }
        return super().make_context(info_name, args, parent, **extra)

    def keys(self) -> dict[str, TyperOption]:
        """The options that a file may set, by their long names."""
        return {
            name: option
            for option in self.params
            if isinstance(option, TyperOption)
            for name in [max(option.opts, key=len).removeprefix("--")]
            if name not in NOT_THERE
        }

    def defaults(self) -> Mapping[str, Default]:
        """What the files say; raises `InputError`."""
        from stemctl.config import Kind, read_defaults

        def kind(option: TyperOption) -> Kind:
            if option.is_flag:
                return Kind.TRUTH
            return Kind.LIST if option.multiple else Kind.TEXT

        return read_defaults(
            self.name or "", {name: kind(option) for name, option in self.keys().items()}
        )
