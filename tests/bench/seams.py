"""Whether it can be heard or measured where a track was cut: one pass against pieces of it.

Small random networks in float32 on the CPU, every kind of window, both stages. ``cuts``: the
track arrives in blocks of odd sizes; ``joined``: it is separated in ranges that end at odd places,
and those are put together.
"""

from __future__ import annotations

import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from stemserve.audio import Block
from stemserve.separation.presets import PRESETS
from stemserve.separation.separators import open_separator
from stemserve.separation.span import WHOLE, Separator, Span

from tests.service.networks import make_weights

RATES = (44100, 48000)
PLACES = (1, 70_001, 441_000, 1_000_001)
STEMS = ("vocals", "instrumental", "drums", "bass", "other")


def add_arguments(parser: ArgumentParser) -> None:
    """How much sound."""
    parser.add_argument("--seconds", type=float, default=30.0)


def measure(seconds: float) -> dict[str, object]:
    """The largest difference in any stem, full scale being 1."""
    worst: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {
            "STEMSERVE_WEIGHTS": place,
            "STEMSERVE_PRECISION": "exact",
            "STEMSERVE_DEVICE": "cpu",
        }
        make_weights(Path(place), PRESETS["ensemble-fast"], segment=1)
        for preset in ("ensemble-fast", "center"):
            for rate in RATES:
                differences = _differences(open_separator(PRESETS[preset]), rate, seconds)
                worst |= {f"{preset}_{rate}_{kind}": value for kind, value in differences.items()}
    return {"max_diff": max(worst.values()), **worst}


def _differences(separator: Separator, rate: int, seconds: float) -> dict[str, float]:
    frames = round(seconds * rate)
    sound = np.random.default_rng(0).normal(0, 0.1, (frames, 2)).astype(np.float32)
    whole = _separated(separator, sound, rate, (65_536,))
    cut = _separated(separator, sound, rate, (1, 4_095, 100_003, 44_099))
    places = [0, *(place for place in PLACES if place < frames), frames]
    ranges = [
        _separated(separator, sound, rate, (65_536,), Span(*pair)) for pair in pairwise(places)
    ]
    joined = {stem: np.concatenate([part[stem] for part in ranges]) for stem in STEMS}
    return {
        kind: max(float(np.abs(whole[stem] - other[stem]).max()) for stem in STEMS)
        for kind, other in (("cuts", cut), ("joined", joined))
    }


def _separated(
    separator: Separator, sound: Block, rate: int, sizes: tuple[int, ...], span: Span = WHOLE
) -> dict[str, Block]:
    parts = list(separator(_blocks(sound, sizes), rate, STEMS, span))
    return {stem: np.concatenate([part[stem] for part in parts]) for stem in STEMS}


def _blocks(sound: Block, sizes: tuple[int, ...]) -> Iterator[Block]:
    at = number = 0
    while at < len(sound):
        size = sizes[number % len(sizes)]
        yield sound[at : at + size]
        at, number = at + size, number + 1
