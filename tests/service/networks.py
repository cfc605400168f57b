"""Files of weights with random content, small or of the true sizes, as they are published."""

from __future__ import annotations

import hashlib
import io
from fractions import Fraction
from pathlib import Path

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from stemserve.separation.recipes import Recipe

from tests.service import convtdf

SOURCES = ["drums", "bass", "other", "vocals"]
SIX_SOURCES = [*SOURCES, "guitar", "piano"]

FT = {"drums": "f7e0c4bc", "bass": "d12395a8", "other": "92cfc3b6", "vocals": "04573f0d"}
HT, SIX, MMI = "955717e8", "5c90dfd2", "75fc33f5"

Settings = dict[str, object]
SMALL_HT: Settings = {
    "channels": 8,
    "t_layers": 1,
    "t_heads": 2,
    "bottom_channels": 32,
    "segment": Fraction(1, 2),
}
SMALL_H: Settings = {"channels": 4, "depth": 6, "hybrid_old": False, "segment": 3}
TRUE_HT: Settings = {
    "channels": 48,
    "t_layers": 5,
    "dconv_mode": 3,
    "bottom_channels": 512,
    "segment": Fraction(39, 5),
}
TRUE_SIX: Settings = TRUE_HT | {"bottom_channels": 384}
TRUE_H: Settings = {"channels": 48, "depth": 6, "hybrid_old": False, "segment": 44}


def make_checkpoint(
    place: Path, signature: str, *, true_size: bool = False, seed: int = 0, **changes: object
) -> HTDemucs | HDemucs:
    """A Demucs network with random weights, and its checkpoint in ``place``."""
    kind = HDemucs if signature == MMI else HTDemucs
    if signature == MMI:
        settings = TRUE_H if true_size else SMALL_H
    elif signature == SIX:
        settings = TRUE_SIX if true_size else SMALL_HT
    else:
        settings = TRUE_HT if true_size else SMALL_HT
    settings = {"sources": SIX_SOURCES if signature == SIX else SOURCES, **settings, **changes}
    torch.manual_seed(seed)
    network: HTDemucs | HDemucs = kind(**settings)
    network.eval()
    if true_size:  # as published: in half precision
        network.half().float()
    package = {
        "klass": kind,
        "args": (),
        "kwargs": settings | {"no_longer_a_setting": 1},
        "state": {
            name: value.half() if true_size else value
            for name, value in network.state_dict().items()
        },
        "training_args": {"optim": {"lr": 3e-4}, "dset": {"sources": SOURCES}},
    }
    content = io.BytesIO()
    torch.save(package, content)
    write_named(place, signature, content.getvalue())
    return network


def write_named(place: Path, signature: str, content: bytes, suffix: str = ".th") -> Path:
    """A file under the name that its content gives it."""
    path = place / f"{signature}-{hashlib.sha256(content).hexdigest()[:8]}{suffix}"
    path.write_bytes(content)
    return path


def make_weights(
    place: Path, recipe: Recipe, *, true_size: bool = False, **changes: object
) -> None:
    """Every file that a preset needs, each of a seed of its own.

    The larger the network, the louder what random weights make of music: that is made up for.
    """
    for seed, file in enumerate(recipe.weights):
        if file.published.endswith(".onnx"):
            size, loudness = (convtdf.TRUE_SIZE, 1e-10) if true_size else (convtdf.SMALL, 0.1)
            content = convtdf.convtdf(size, seed, loudness)
            write_named(place, file.signature, content, ".onnx")
        elif file.signature == MMI:
            make_checkpoint(place, file.signature, true_size=true_size, seed=seed)
        else:
            make_checkpoint(place, file.signature, true_size=true_size, seed=seed, **changes)
