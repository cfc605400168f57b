"""The presets as data: what they say of themselves is of one piece."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from stemserve.separation.presets import PRESETS, described
from stemserve.separation.recipes import Recipe

README = Path(__file__).parents[2] / "service/README.md"
NETWORKS = [recipe for recipe in PRESETS.values() if recipe.members]


@pytest.mark.parametrize("recipe", NETWORKS, ids=lambda recipe: recipe.name)
def test_each_is_of_one_piece(recipe: Recipe) -> None:
    assert recipe.quality.keys() <= set(recipe.stems)
    given = {source for m in (*recipe.members, *recipe.band) for source in m.counts}
    assert given | {"instrumental"} == set(recipe.stems)
    for file in recipe.weights:
        assert file.entry is not None, f"{file.published} is not in the registry"


def test_the_ensemble_is_the_recipe() -> None:
    ensemble = PRESETS["ensemble"]
    assert [member.counts["vocals"] for member in ensemble.members] == [12, 8, 3]
    assert {m.overlap for m in ensemble.members} == {0.6}
    weights = {
        source: [m.counts[source] for m in ensemble.band if source in m.counts]
        for source in ("drums", "bass", "other")
    }
    assert weights == {"drums": [18, 2, 4, 9], "bass": [19, 4, 5, 8], "other": [14, 2, 5, 10]}
    assert {(m.overlap, m.both_polarities) for m in ensemble.band} == {(0.5, True), (0.6, True)}
    assert len(ensemble.weights) == 9


def test_only_what_the_stems_need_is_heard() -> None:
    def heard(preset: str, *stems: str) -> int:
        return sum(map(len, PRESETS[preset].heard(stems)))

    assert heard("htdemucs_ft", "instrumental") == 1
    assert heard("htdemucs_ft", "drums", "bass") == 2
    assert heard("ensemble", "vocals", "instrumental") == 3
    assert heard("ensemble", "bass") == 9
    assert heard("ensemble-single", "vocals") == 2
    assert PRESETS["htdemucs_ft"].cost(("vocals",)) == pytest.approx(1)


def test_costs_are_told_in_times_of_htdemucs() -> None:
    told = {preset.name: preset for preset in described()}
    assert told["htdemucs"].cost == 1
    assert told["htdemucs_ft"].cost == 4
    assert told["center"].cost is None
    for preset in ("ensemble", "ensemble-fast"):
        assert (told[preset].cost or 0) > 2 * (told[preset].cost_vocals or 0) > 2
    assert told["ensemble"].quality["vocals"] == 9.51


def test_the_readme_has_a_row_for_each() -> None:
    section = README.read_text().partition("\n## Presets\n")[2].partition("\nFigures of quality")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == set(PRESETS)
