"""The seam between the job queue and the separation: what is asked of it, what it says on the way.

A task is one job without its HTTP; the separation process gets it as JSON on standard input and
answers with events as JSON lines on standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stemserve.schema import (
    BitDepth,
    Clip,
    Details,
    Gpu,
    Preset,
    Range,
    ResultFile,
    Segments,
    StemFormat,
    Tasks,
    WeightsHere,
)

PRELOAD_VARIABLE = "STEMSERVE_PRELOAD"
"""Names to the process, in its environment, a preset to load before it says `Started`."""

DEVICE_LOST = 70
"""The process ends with this code when its GPU has failed: another process may go on with it."""

PARTIAL, RESULTS = ".partial", "results"
"""A folder beside the results, in which they grow, and one in it where they are made whole. It
holds ``{stem}.samples`` for each stem, which are those of a WAV file."""


def kept_in_results(stem_format: StemFormat, clip: Clip) -> bool:
    """Whether the samples of a stem become its result as they are: nothing is left to encode."""
    return stem_format is StemFormat.WAV and clip is not Clip.RESCALE


class TaskPart(BaseModel):
    """Frames of the track, from ``start`` to ``end``, that were finished elsewhere."""

    model_config = ConfigDict(frozen=True)

    start: int
    end: int
    files: dict[str, Path]
    """A WAV file for each stem that is kept."""


class SeparationTask(BaseModel):
    """One input to separate. Results appear in ``output_dir`` whole or not at all."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    input_path: Path
    output_dir: Path
    preset: str
    stems: tuple[str, ...]
    format: StemFormat = StemFormat.WAV
    bit_depth: BitDepth | None = None
    mono: bool = False
    template_mp3: bool = False
    """Also write instrumental.mp3, mono and VBR quality 2, as the template did."""
    cut_points: tuple[float, ...] = ()
    """Seconds of the track; segments between them. Empty: a segment every 5 minutes."""
    range: Range | None = None
    """The part of the track that is wanted; None: all of it."""
    clip: Clip = Clip.NONE
    strict: bool = False
    """Fail over a damaged input, rather than take what can be decoded."""
    input_sha256: str | None = None
    """Of the input's bytes; None: not known, and found by reading them."""
    input_name: str | None = None
    """What people call the input; None: by its file name."""
    longest_seconds: float | None = None
    """A track that is longer is refused."""
    most_channels: int | None = None
    """So is one that has more."""
    keep_partial: bool = False
    """Leave `PARTIAL` when the results are in place, for whoever asked to remove once he has noted
    that: should he be killed before, the task is done at once when it is asked for again."""
    parts: tuple[TaskPart, ...] = ()
    """What is taken as it is, in order."""


class Started(BaseModel):
    """The process is up: its first event, once, before it reads a task."""

    kind: Literal["started"] = "started"
    device: str
    presets: list[Preset]
    gpu: Gpu | None = None
    weights: list[WeightsHere] = []
    versions: dict[str, str] = {}


class Advanced(BaseModel):
    """The task got further."""

    kind: Literal["advanced"] = "advanced"
    tasks: Tasks
    details: Details
    duration_seconds: float | None = None
    vram_used: int | None = None
    """Bytes of the GPU's memory in use; None: none is used here."""


class Committed(BaseModel):
    """So much of the task is on the disk; told at its start, and at the end of each segment."""

    kind: Literal["committed"] = "committed"
    segments: Segments


class Logged(BaseModel):
    """A line for the job's log."""

    kind: Literal["logged"] = "logged"
    line: str


class Finished(BaseModel):
    """The task's results are in place."""

    kind: Literal["finished"] = "finished"
    results: list[ResultFile]
    duration_seconds: float


class Failed(BaseModel):
    """The task failed for a reason that a second try would not mend."""

    kind: Literal["failed"] = "failed"
    error: str
    error_type: str


Event = Annotated[
    Started | Advanced | Committed | Logged | Finished | Failed, Field(discriminator="kind")
]
