"""The sidecar: how the files of a job were made, as a JSON file among them."""

from __future__ import annotations

import platform
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from stemserve.schema import BitDepth, Clip, Range, Sha256, StemFormat
from stemserve.separation.device import device_name
from stemserve.separation.recipes import Recipe
from stemserve.separation.separators import how_it_runs
from stemserve.separation.versions import versions
from stemserve.weights import records


class Input(BaseModel):
    """What was separated."""

    model_config = ConfigDict(frozen=True)

    name: str | None
    sha256: Sha256
    seconds: float
    """Of the track, by its packets."""
    rate: int
    channels: int
    """1 or 2: more are mixed down."""


class Parameters(BaseModel):
    """What was asked, with defaults filled in."""

    model_config = ConfigDict(frozen=True)

    stems: tuple[str, ...]
    format: StemFormat
    bit_depth: BitDepth | None
    mono: bool
    clip: Clip
    range: Range | None
    strict: bool


class Weights(BaseModel):
    """A file of weights that the preset uses."""

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: Sha256 | None
    """Of the file that was there; null: it has not been read."""
    licence: str
    granted: bool


class Maker(BaseModel):
    """What made the samples. They are the same again where this is the same."""

    model_config = ConfigDict(frozen=True)

    preset: str
    weights: tuple[Weights, ...]
    versions: dict[str, str]
    device: str
    networks_run: str | None
    """On what and in which precision; null: there are none."""
    machine: str


class Sidecar(BaseModel):
    """All that the file tells."""

    input: Input
    parameters: Parameters
    maker: Maker
    created: datetime
    seconds: float
    """What the separation took, of all attempts what was not lost."""
    realtime: float
    """Seconds of sound for a second of work."""
    result_seconds: float
    gain: float
    """By which all files were turned down (clip: rescale); 1: not."""
    taken: tuple[tuple[int, int], ...] = ()
    """Frames of the track, from and to, that were separated elsewhere and taken over as parts."""
    held_at_full_scale: dict[str, int]
    """By file, how many samples were beyond full scale and are held there, where there are any."""
    peaks: dict[str, float]
    """By stem, the largest absolute sample, before gain and clamp."""
    remarks: tuple[str, ...]
    """What a person would want to know of the input."""


def maker(recipe: Recipe) -> Maker:
    """What makes the samples of that preset here, with its weights as they are now."""
    return Maker(
        preset=recipe.name,
        weights=tuple(
            Weights(
                file=file.published,
                sha256=records.recorded(path) if (path := file.find()) else None,
                licence=file.licence.name,
                granted=file.licence.granted,
            )
            for file in recipe.weights
        ),
        versions=versions(),
        device=device_name(),
        networks_run=how_it_runs(recipe),
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    )


def now() -> datetime:
    """The time of the file, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
