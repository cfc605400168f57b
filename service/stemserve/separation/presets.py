"""The presets: what there is, and whether this worker has it.

Figures of quality are those that the models' and the recipe's authors or MVSep report; nobody has
measured them with this code. Imports neither torch nor anything of sound, so that the API can tell
presets apart too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from stemserve import schema
from stemserve.errors import UnknownNameError
from stemserve.names import nearest
from stemserve.separation.recipes import PLAIN_OVERLAP, SOURCES, Member, Network, Recipe
from stemserve.weights.files import (
    DIRECTORY_VARIABLE,
    WeightFile,
    directory,
    how_to_fetch,
    missing,
)
from stemserve.weights.licences import policy, refused

STEMS = ("vocals", "instrumental", "drums", "bass", "other")

_DEMUCS = ("torch", "demucs")
_MDX = ("torch", "onnx", "onnxruntime")

_HTDEMUCS = Network(WeightFile("955717e8-8726e21a.th"))
_HTDEMUCS_6S = Network(WeightFile("5c90dfd2-34c22ccb.th"), 0.8)
_HDEMUCS_MMI = Network(WeightFile("75fc33f5-1941ce65.th"))
_FT = {
    "drums": Network(WeightFile("f7e0c4bc-ba3fe64a.th")),
    "bass": Network(WeightFile("d12395a8-e57c48e6.th")),
    "other": Network(WeightFile("92cfc3b6-ef3bcb9c.th")),
    "vocals": Network(WeightFile("04573f0d-f3cf25b2.th")),
}
_KIM_VOCAL = Network(WeightFile("Kim_Vocal_2.onnx"), 1.4)
_KIM_INST = Network(WeightFile("Kim_Inst.onnx"), 1.4)


def _voice(weights: tuple[float, float, float], *, fast: bool = False) -> tuple[Member, ...]:
    """The ensemble's first stage; ``weights`` of Kim_Vocal_2, Kim_Inst, htdemucs_ft."""
    overlap = PLAIN_OVERLAP if fast else 0.6
    vocal, inst, ft = ({"vocals": weight} for weight in weights)
    members = [
        Member(_KIM_VOCAL, vocal, overlap),
        Member(_KIM_INST, inst, overlap, turned=True),
        Member(_FT["vocals"], ft, overlap, both_polarities=not fast),
    ]
    return tuple(member for member in members if member.counts["vocals"])


def _band(*, fast: bool = False) -> tuple[Member, ...]:
    """The ensemble's second stage. The first network's voice is not among the weights: no stem
    depends on what the second stage takes for vocals."""
    half, wide = (PLAIN_OVERLAP, PLAIN_OVERLAP) if fast else (0.5, 0.6)
    both = not fast
    return (
        Member(_FT["drums"], {"drums": 18}, half, both),
        Member(_FT["bass"], {"bass": 19}, half, both),
        Member(_FT["other"], {"other": 14}, half, both),
        Member(_HTDEMUCS, {"drums": 2, "bass": 4, "other": 2}, wide, both),
        Member(_HTDEMUCS_6S, {"drums": 4, "bass": 5, "other": 5}, wide, both, folded=True),
        Member(_HDEMUCS_MMI, {"drums": 9, "bass": 8, "other": 10}, wide, both),
    )


def _alone(network: Network, sources: tuple[str, ...] = SOURCES) -> Member:
    return Member(network, dict.fromkeys(sources, 1), PLAIN_OVERLAP)


_BOTH = tuple(dict.fromkeys((*_DEMUCS, *_MDX)))

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
            _DEMUCS,
            (_alone(_HTDEMUCS),),
            quality={"vocals": 8.24, "bass": 11.76, "drums": 10.88, "other": 5.74},
        ),
        Recipe(
            "htdemucs_ft",
            "Hybrid Transformer Demucs, one network tuned for each stem: better, up to 4 × slower",
            STEMS,
            _DEMUCS,
            tuple(_alone(network, (source,)) for source, network in _FT.items()),
            quality={"vocals": 8.38, "bass": 11.96, "drums": 11.13, "other": 5.85},
        ),
        Recipe(
            "htdemucs_6s",
            "Hybrid Transformer Demucs with guitar and piano (the piano is weak)",
            (*STEMS, "guitar", "piano"),
            _DEMUCS,
            (_alone(_HTDEMUCS_6S, (*SOURCES, "guitar", "piano")),),
            quality={"vocals": 8.05, "bass": 11.22, "drums": 10.22},
        ),
        Recipe(
            "hdemucs_mmi",
            "Hybrid Demucs, before the transformer, with windows of 44 s",
            STEMS,
            _DEMUCS,
            (_alone(_HDEMUCS_MMI),),
            quality={"vocals": 8.22, "bass": 11.17, "drums": 10.70, "other": 5.42},
        ),
        Recipe(
            "kim_vocal_2",
            "One MDX network for the voice: vocals and instrumental only",
            ("vocals", "instrumental"),
            _MDX,
            (_alone(_KIM_VOCAL, ("vocals",)),),
        ),
        Recipe(
            "ensemble",
            "Two MDX and four Demucs models in two stages: the best here, and the dearest",
            STEMS,
            _BOTH,
            _voice((12, 8, 3)),
            _band(),
            {"vocals": 9.51, "instrumental": 15.82, "bass": 12.50, "drums": 11.69, "other": 6.54},
        ),
        Recipe(
            "ensemble-single",
            "The ensemble with one MDX model instead of two",
            STEMS,
            _BOTH,
            _voice((6, 0, 1)),
            _band(),
        ),
        Recipe(
            "ensemble-fast",
            "The ensemble without averaging over polarity and with less overlap: 2 to 3 × faster",
            STEMS,
            _BOTH,
            _voice((12, 8, 3), fast=True),
            _band(fast=True),
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
                quality=dict(recipe.quality),
                cost=round(recipe.cost(recipe.stems), 1) or None,
                cost_vocals=round(recipe.cost(("vocals",)), 1) or None,
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
    choices = nearest(name, names)
    return UnknownNameError(
        f"There is no {kind} named {name!r}; there are {', '.join(choices)}.", choices
    )
