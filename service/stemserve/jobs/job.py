"""A job inside the worker: what it asks for, defaults filled in and names checked; how it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from stemserve import clock
from stemserve.errors import PresetUnavailableError, RequestError, UnknownNameError
from stemserve.names import nearest
from stemserve.schema import (
    MIX,
    STEM_FILE_STEMS,
    BitDepth,
    Clip,
    Details,
    JobRequest,
    JobStatus,
    Part,
    Preset,
    Range,
    ResultFile,
    StemFormat,
    Tasks,
    cut_points,
    derived_stems,
    part_ranges,
)
from stemserve.task import SeparationTask, TaskPart

TEMPLATE_STEM = "instrumental"
DEFAULT_STEMS = ("vocals", TEMPLATE_STEM)


class JobContent(BaseModel):
    """All that decides the results of a job: two jobs of equal content have equal results."""

    model_config = ConfigDict(frozen=True)

    input_url: str | None
    input_sha256: str | None
    preset: str
    stems: tuple[str, ...]
    format: StemFormat
    bit_depth: BitDepth | None
    mono: bool
    template_mp3: bool
    cut_points: tuple[float, ...]
    range: Range | None = None
    clip: Clip = Clip.NONE
    strict: bool = False
    parts: tuple[Part, ...] = ()
    """What is taken as it is. A caller can put anything there, so it is part of the content."""

    def text(self) -> str:
        """The content in JSON, the same for the same content.

        What has a default is left out where it has it, so that a job from before there was such a
        thing is still the same job.
        """
        return self.model_dump_json(exclude_defaults=True)

    def digest(self) -> str:
        """The content's name: 32 hex digits."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:32]

    def task(
        self,
        job_id: str,
        input_path: Path,
        output_dir: Path,
        *,
        input_sha256: str | None = None,
        input_name: str | None = None,
        part: Callable[[str], Path] = Path,
    ) -> SeparationTask:
        """What the separation process is asked for, once the input is on this machine.

        ``part`` says where the input of a part is.
        """
        parts = part_ranges(self.parts)
        return SeparationTask(
            job_id=job_id,
            input_path=input_path,
            output_dir=output_dir,
            preset=self.preset,
            stems=self.stems,
            format=self.format,
            bit_depth=self.bit_depth,
            mono=self.mono,
            template_mp3=self.template_mp3,
            cut_points=self.cut_points,
            range=self.range,
            clip=self.clip,
            strict=self.strict,
            input_sha256=input_sha256,
            input_name=input_name,
            parts=tuple(
                TaskPart(start=start, end=end, files={stem: part(at) for stem, at in files.items()})
                for (start, end), files in parts.items()
            ),
        )


@dataclass(frozen=True)
class StoredJob:
    """A job as it is now. Times are seconds since 1970."""

    job_id: str
    content: JobContent
    input_sha256: str | None
    """Of what is separated; known for an input_url once it has been fetched."""
    input_name: str | None
    status: JobStatus
    attempts: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    tasks: Tasks
    details: Details
    duration_seconds: float | None
    results: list[ResultFile]
    error: str | None
    error_type: str | None
    results_gone: bool = False
    """Whether there were results, which are no longer kept."""

    @property
    def elapsed_seconds(self) -> float:
        """How long the job has run, or ran."""
        if self.started_at is None:
            return 0.0
        return max(0.0, (self.ended_at or clock.now()) - self.started_at)


def resolve(
    request: JobRequest, presets: list[Preset], default_preset: str, *, strict: bool = False
) -> JobContent:
    """The content of a request to a worker that knows ``presets``; ``strict``: its own default.

    Raises:
        UnknownNameError: the preset or a stem is none of this worker.
        PresetUnavailableError: the worker lacks what the preset needs.
        RequestError: there are parts, and not of the stems that are kept for this job.
    """
    preset = find_preset(request.preset or default_preset, presets)
    stems = _stems(request, preset)
    _check_parts(request, stems)
    return JobContent(
        input_url=None if request.input_url is None else str(request.input_url),
        input_sha256=request.input_sha256,
        preset=preset.name,
        stems=stems,
        format=request.format or StemFormat.WAV,
        bit_depth=request.bit_depth,
        mono=request.mono,
        template_mp3=request.format is None and TEMPLATE_STEM in stems,
        cut_points=cut_points(request.interval_cut),
        range=request.range,
        clip=request.clip,
        strict=strict if request.strict is None else request.strict,
        parts=tuple(request.parts or ()),
    )


def find_preset(name: str, presets: list[Preset]) -> Preset:
    """The preset of that name, which this worker can serve; raises as `resolve` does."""
    found = next((preset for preset in presets if preset.name == name), None)
    if found is None:
        choices = nearest(name, [preset.name for preset in presets])
        raise UnknownNameError(_unknown("preset", name, choices), choices)
    if not found.available:
        raise PresetUnavailableError(f"Preset {name} cannot be served here: {found.lacks}")
    return found


def _stems(request: JobRequest, preset: Preset) -> tuple[str, ...]:
    """The stems wanted, each once, in the preset's order; derived ones after them, then the mix."""
    known = (*preset.stems, *derived_stems(preset.stems), MIX)
    named = STEM_FILE_STEMS if request.format is StemFormat.STEM_MP4 else request.stems
    for name in named or []:
        if name not in known:
            derived = nearest(name, [stem for stem in known if stem not in preset.stems])
            own = nearest(name, preset.stems)
            choices = [*derived, *own] if name.startswith("no_") else [*own, *derived]
            raise UnknownNameError(_unknown(f"stem of {preset.name}", name, choices), choices)
    if named:
        wanted = set(named)
    elif request.all_stems or not set(DEFAULT_STEMS) <= set(known):
        wanted = set(preset.stems)
    else:
        wanted = set(DEFAULT_STEMS)
    return tuple(name for name in known if name in wanted)


def _check_parts(request: JobRequest, stems: tuple[str, ...]) -> None:
    kept = {MIX, *stems} if request.format is StemFormat.STEM_MP4 else set(stems)
    held = {part.stem for part in request.parts or []}
    if held and held != kept:
        raise RequestError(
            f"parts: each range must hold {', '.join(sorted(kept))}, and no other stem;"
            f" these hold {', '.join(sorted(held))}."
        )


def _unknown(kind: str, name: str, choices: list[str]) -> str:
    if not choices:
        return f"There is no {kind} named {name}."
    return f"There is no {kind} named {name}; the nearest is {choices[0]}."
