"""From a preset's name to the code that separates; a network stays loaded between tasks."""

from __future__ import annotations

from stemserve.errors import PresetUnavailableError
from stemserve.separation.presets import lacks
from stemserve.separation.recipes import Recipe
from stemserve.separation.span import Separator

_loaded: dict[str, Separator] = {}


def open_separator(recipe: Recipe, *, at_once: bool = False) -> Separator:
    """The separator of a preset. One preset is kept loaded at a time.

    Args:
        recipe: the preset.
        at_once: load its networks now; else each is when it is first needed.

    Raises:
        PresetUnavailableError: something that it needs is not here.
    """
    lacking = lacks(recipe)
    if lacking:
        raise PresetUnavailableError(f"This worker cannot serve {recipe.name}: it {lacking}.")
    if recipe.name not in _loaded:
        _loaded.clear()
        _loaded[recipe.name] = _load(recipe, at_once=at_once)
    return _loaded[recipe.name]


def how_it_runs(recipe: Recipe) -> str | None:
    """On what and in which numbers a preset's networks run here; ``None`` for one without any."""
    if not recipe.members:
        return None
    from stemserve.separation.running import running

    return running().described()


def _load(recipe: Recipe, *, at_once: bool) -> Separator:
    if not recipe.members:
        from stemserve.separation.center import separate

        return separate
    from stemserve.separation.networks import load

    return load(recipe, at_once=at_once)
