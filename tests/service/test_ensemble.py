"""The ensemble with small random networks: the numbers of the recipe, whole or in spans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stemserve.audio import Block
from stemserve.separation import mdx
from stemserve.separation.presets import PRESETS
from stemserve.separation.separators import open_separator
from stemserve.separation.span import WHOLE, Span

from tests.service.networks import make_weights
from tests.service.plain import Plain

STEMS = ("vocals", "instrumental", "drums", "bass", "other")
FRAMES = 150_000
WINDOW = 80_000
CLOSE = 1e-5

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> Block:
    """Noise that swells, for no part of it to be like another; MDX windows of a few seconds."""
    monkeypatch.setattr(mdx, "WINDOW", WINDOW)
    noise = np.random.default_rng(1).normal(0, 0.1, (FRAMES, 2))
    sound: Block = (noise * (1 + np.sin(np.arange(FRAMES) / 9000))[:, None]).astype(np.float32)
    return sound


def separated(
    preset: str, sound: Block, stems: Sequence[str], span: Span = WHOLE
) -> dict[str, Block]:
    """Stems of a sound at 44.1 kHz, fed in blocks."""
    blocks = (sound[at : at + 30_000] for at in range(0, len(sound), 30_000))
    parts = list(open_separator(PRESETS[preset])(blocks, 44100, stems, span))
    return {stem: np.concatenate([part[stem] for part in parts]) for stem in stems}


@pytest.mark.parametrize("preset", ["ensemble", "ensemble-single"])
def test_it_is_the_recipe(weights: Path, sound: Block, preset: str) -> None:
    make_weights(weights, PRESETS[preset], segment=2)
    four = preset == "ensemble"
    theirs = Plain(weights, single=not four, four=four).separate(sound, window=WINDOW)
    ours = separated(preset, sound, STEMS if four else ("vocals", "instrumental"))
    for stem in ours:
        assert np.abs(theirs[stem]).max() > 0.01
        assert np.abs(theirs[stem] - ours[stem]).max() < CLOSE, stem
    if four:
        total = ours["vocals"] + ours["drums"] + ours["bass"] + ours["other"]
        np.testing.assert_allclose(total, sound, atol=1e-6)
    np.testing.assert_array_equal(ours["instrumental"], sound - ours["vocals"])


def test_vocals_need_none_of_the_second_stage(weights: Path, sound: Block) -> None:
    make_weights(weights, PRESETS["ensemble"], segment=2)
    for path in weights.iterdir():
        if not path.name.startswith(("Kim", "04573f0d")):
            path.write_bytes(b"not what the name says")
    assert set(separated("ensemble", sound[:1000], ["vocals", "instrumental"])) == {
        "vocals",
        "instrumental",
    }


@pytest.mark.parametrize("stems", [("vocals",), ("drums", "bass")])
def test_spans_are_what_the_whole_has_there(
    weights: Path, sound: Block, stems: tuple[str, ...]
) -> None:
    make_weights(weights, PRESETS["ensemble-fast"], segment=2)
    whole = separated("ensemble-fast", sound, stems)
    for span in (Span(0, 1), Span(60_001, 105_000), Span(105_000)):
        part = separated("ensemble-fast", sound, stems, span)
        for stem in stems:
            np.testing.assert_array_equal(part[stem], whole[stem][span.start : span.end])


def test_kim_vocal_2_alone(weights: Path, sound: Block) -> None:
    make_weights(weights, PRESETS["kim_vocal_2"])
    stems = separated("kim_vocal_2", sound, ["vocals", "instrumental"])
    assert np.abs(stems["vocals"]).max() > 0.01
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], sound, atol=1e-6)
