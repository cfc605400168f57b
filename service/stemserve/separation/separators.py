"""From a preset's name to the code that separates; a network stays loaded between tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from stemserve.audio import Block
from stemserve.errors import PresetUnavailableError
from stemserve.separation.presets import Recipe, lacks

Separator: TypeAlias = Callable[[Iterable[Block], int, Sequence[str]], Iterator[dict[str, Block]]]
"""Takes blocks [frames, 1 or 2], their rate and the wanted stems; gives consecutive parts of all
these stems, together exactly as long as the blocks."""

_loaded: dict[str, Separator] = {}


def open_separator(recipe: Recipe) -> Separator:
    """The separator of a preset, its weights loaded. One preset is kept loaded at a time.

    Raises:
        PresetUnavailableError: something that it needs is not here.
    """
    lacking = lacks(recipe)
    if lacking:
        raise PresetUnavailableError(f"This worker cannot serve {recipe.name}: it {lacking}.")
    if recipe.name not in _loaded:
        _loaded.clear()
        _loaded[recipe.name] = _load(recipe)
    return _loaded[recipe.name]


def _load(recipe: Recipe) -> Separator:
    if not recipe.networks:
        from stemserve.separation.center import separate

        return separate
    from stemserve.separation.demucs_model import load

    return load(recipe)
