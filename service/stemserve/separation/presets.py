"""The presets, as data: what each is made of, and whether this worker has it.

Imports neither torch nor anything of sound, so that the API can tell presets apart too.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

from stemserve import schema
from stemserve.errors import UnknownNameError
from stemserve.weights.files import (
    DIRECTORY_VARIABLE,
    WeightFile,
    directory,
    how_to_fetch,
    missing,
)
from stemserve.weights.licences import policy, refused

STEMS = ("vocals", "instrumental", "drums", "bass", "other")


@dataclass(frozen=True)
class Network:
    """A member of a preset, and the sources that its word counts for."""

    weights: WeightFile
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A preset: how it is described, and what it needs."""

    name: str
    description: str
    stems: tuple[str, ...]
    packages: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    @property
    def weights(self) -> tuple[WeightFile, ...]:
        """The files of weights that it needs."""
        return tuple(network.weights for network in self.networks)


_DEMUCS_PACKAGES = ("torch", "demucs")
_DEMUCS_SOURCES = ("drums", "bass", "other", "vocals")

PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "center",
            "What is panned to the centre, without any weights: "
            "there to try the system, not to compete with a network",
            STEMS,
        ),
        Recipe(
            "htdemucs",
            "Hybrid Transformer Demucs",
            STEMS,
            _DEMUCS_PACKAGES,
            (Network(WeightFile("955717e8-8726e21a.th"), _DEMUCS_SOURCES),),
        ),
        Recipe(
            "htdemucs_ft",
            "Hybrid Transformer Demucs, one network tuned for each stem: better, up to 4 × slower",
            STEMS,
            _DEMUCS_PACKAGES,
            (
                Network(WeightFile("f7e0c4bc-ba3fe64a.th"), ("drums",)),
                Network(WeightFile("d12395a8-e57c48e6.th"), ("bass",)),
                Network(WeightFile("92cfc3b6-ef3bcb9c.th"), ("other",)),
                Network(WeightFile("04573f0d-f3cf25b2.th"), ("vocals",)),
            ),
        ),
    )
}


def find_preset(name: str) -> Recipe:
    """The preset of that name.

    Raises:
        UnknownNameError: there is none; ``choices`` holds all names, the nearest first.
    """
    if name in PRESETS:
        return PRESETS[name]
    raise _unknown("preset", name, PRESETS)


def check_stems(recipe: Recipe, stems: Iterable[str]) -> None:
    """Nothing, when there are some and the preset gives all of them.

    Raises:
        UnknownNameError: there are none, or it does not give one of them.
    """
    stems = tuple(stems)
    if not stems:
        raise UnknownNameError("Name at least one stem.", list(recipe.stems))
    for stem in stems:
        if stem not in recipe.stems:
            raise _unknown(f"stem of {recipe.name}", stem, recipe.stems)


def lacks(recipe: Recipe) -> str | None:
    """What this worker lacks for a preset, and how to get it; ``None`` when it has all."""
    packages = [name for name in recipe.packages if importlib.util.find_spec(name) is None]
    if packages:
        return f"needs {' and '.join(packages)}: pip install 'stemfleet[image]'"
    if refusal := refused(recipe.weights, policy()):
        return refusal
    files = missing(recipe.weights)
    if files:
        return (
            f"needs the weights {', '.join(files)} in {directory()} "
            f"(or in another directory, named by {DIRECTORY_VARIABLE}): {how_to_fetch(recipe.name)}"
        )
    return None


def described() -> list[schema.Preset]:
    """Every preset in the words of the HTTP contract, with whether it can be served here."""
    presets = []
    for recipe in PRESETS.values():
        lacking = lacks(recipe)
        presets.append(
            schema.Preset(
                name=recipe.name,
                description=recipe.description,
                stems=list(recipe.stems),
                available=lacking is None,
                lacks=lacking,
                licences=[
                    schema.WeightsLicence(
                        file=file.published,
                        granted=file.licence.granted,
                        name=file.licence.name,
                        says=file.licence.says,
                    )
                    for file in recipe.weights
                ],
            )
        )
    return presets


def _unknown(kind: str, name: str, names: Iterable[str]) -> UnknownNameError:
    choices = sorted(names, key=lambda known: -difflib.SequenceMatcher(None, name, known).ratio())
    return UnknownNameError(
        f"There is no {kind} named {name!r}; there are {', '.join(choices)}.", choices
    )
