"""The HTTP contract of a worker, the one source for server, client and documentation.

Imports nothing of the rest of the worker, so that a client can use it alone. Names, words and
status codes of the calls on ``/job``, ``/jobs``, ``/result``, ``/status`` and ``/health`` are those
of the Docker template that this project grew out of: its clients keep working.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, StringConstraints, model_validator

PORT = 8185
"""The only port a worker serves on, unless told otherwise."""

MAX_SECONDS = 1e6
"""No range reaches further: eleven days."""

MAX_FRAMES = 2**53
MAX_PARTS = 1024
"""As many parts a request can hold: of five stems, 17 hours in pieces of five minutes."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Content name of an input: SHA-256 of its bytes, in lower-case hex."""

JobId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"),
    Field(description="The job's name"),
]
"""A job's name: no dot and no slash, so that it is always one plain directory name."""

StemName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$"), Field(description="Name of a stem")
]
PresetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class StemFormat(StrEnum):
    """File format of the stems. ``stem.mp4`` holds the mix and `STEM_FILE_STEMS`, for DJs."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OPUS = "opus"
    M4A = "m4a"
    STEM_MP4 = "stem.mp4"


class BitDepth(StrEnum):
    """Bits of a sample. ``32f`` is 32-bit float, which wav alone can hold; mp3 has no bit depth."""

    B16 = "16"
    B24 = "24"
    F32 = "32f"


BIT_DEPTHS: dict[StemFormat, tuple[BitDepth, ...]] = {
    StemFormat.WAV: (BitDepth.B16, BitDepth.B24, BitDepth.F32),
    StemFormat.FLAC: (BitDepth.B16, BitDepth.B24),
    StemFormat.MP3: (),
    StemFormat.OPUS: (),
    StemFormat.M4A: (),
    StemFormat.STEM_MP4: (),
}
"""The bit depths that each format can hold."""

DEFAULT_DEPTHS = {StemFormat.WAV: BitDepth.F32, StemFormat.FLAC: BitDepth.B16}
"""The bit depth of a format when none is named. Where bits are lost, TPDF dither is added; the
same sound gets the same dither, so that the same job gives the same bytes."""


class Clip(StrEnum):
    """What becomes of stems beyond full scale, which a sum of waves taken apart may well be.

    ``none``: they stay as they are where the format can hold that (wav in 32f), so that the stems
    still add up to the mix; elsewhere they are held at full scale.
    ``rescale``: if any is beyond, all files of the job are turned down by one common gain, so that
    they add up to the mix turned down. ``clamp``: held at full scale in every format.
    What was held at full scale, and a gain, are told in the job's log and in `SIDECAR`.
    """

    NONE = "none"
    RESCALE = "rescale"
    CLAMP = "clamp"


SIDECAR = "separation.json"
"""The result that tells how the others were made: input, preset, weights, versions, seconds."""

STEM_FILE_STEMS = ("drums", "bass", "other", "vocals")
"""What a file in the format ``stem.mp4`` holds behind the mix, in its order."""

MIX = "mix"
"""The sound as it came, where it is kept like a stem."""


def file_names(stems: Iterable[str], stem_format: StemFormat) -> tuple[str, ...]:
    """The result files that hold these stems in that format."""
    if stem_format is StemFormat.STEM_MP4:
        return (f"mix.{stem_format}",)
    return tuple(f"{stem}.{stem_format}" for stem in stems)


def derived_stems(stems: Iterable[str]) -> dict[str, str]:
    """What can be asked of a preset beside its own ``stems``: the mix without one of them.

    By name, ``no_{stem}``, the stem that is left out; ``instrumental`` is the mix without vocals.
    """
    own = tuple(stems)
    derived = {f"no_{stem}": stem for stem in own if stem != "instrumental"}
    if "vocals" in own:
        derived["instrumental"] = "vocals"
    return {name: stem for name, stem in derived.items() if name not in own}


class JobStatus(StrEnum):
    """Where a job is. A cancelled job is ``failed`` with the error type ``cancelled``."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class JobState(StrEnum):
    """The template's word for the same, as in its progress.txt."""

    IDLE = "idle"
    DEMUCS = "demucs"
    COMPLETED = "completed"
    ERROR = "error"


class TaskState(StrEnum):
    """State of one of the template's four tasks."""

    NO_WORK = "no_work"
    RUNNING = "running"
    DONE = "done"


class Contract(BaseModel):
    """Base of every body: unknown fields are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(Contract):
    """A part of a track. Its samples are those that the whole track gives there.

    A boundary in seconds is the sample nearest to it, at the track's own rate, halves rounded up:
    two ranges with a common boundary join without gap or overlap.
    """

    start_seconds: float = Field(0.0, ge=0, le=MAX_SECONDS)
    end_seconds: float | None = Field(
        None, gt=0, le=MAX_SECONDS, description="Default: the end of the track"
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.end_seconds is not None and self.end_seconds <= self.start_seconds:
            raise ValueError("end_seconds must be more than start_seconds")
        return self


class Part(Contract):
    """Finished samples of one stem, in place of which nothing is separated.

    They are those that `Segments` tells of, of a job that asks for the same of the same track: the
    WAV files of the segments as they were served, uploaded as inputs. Adjacent segments may be
    joined into one file.
    """

    start_frame: int = Field(ge=0, le=MAX_FRAMES, description="Of the track, from 0")
    end_frame: int = Field(ge=1, le=MAX_FRAMES, description="The first frame behind it")
    stem: StemName
    input_sha256: Sha256 = Field(description="The uploaded WAV file")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.end_frame <= self.start_frame:
            raise ValueError("end_frame must be more than start_frame")
        return self


_CLOCK = r"(?:(?:(\d{1,6}):)?(\d{1,6}):)?(\d{1,9}(?:\.\d{1,9})?)"
_SPAN = re.compile(rf"\s*{_CLOCK}\s*-\s*(?:{_CLOCK})?\s*", re.ASCII)


def parse_range(text: str) -> Range:
    """The range of ``60-90``, ``1:00-1:30``, ``1:02:03-1:02:45`` or, to the end, ``60-``.

    Raises:
        ValueError: it is none of these, or does not rise.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text}: give two times, such as 60-90, 1:00-1:30 or 1:02:03-")
    parts = found.groups()
    times = [
        sum(float(part or 0) * unit for part, unit in zip(clock, (3600, 60, 1), strict=True))
        for clock in (parts[:3], parts[3:])
    ]
    start, end = times[0], times[1] if parts[5] else None
    if end is not None and end <= start:
        raise ValueError(f"{text}: the second time must be later than the first")
    if max(times) > MAX_SECONDS:
        raise ValueError(f"{text}: no range reaches beyond {MAX_SECONDS:.0f} seconds")
    return Range(start_seconds=start, end_seconds=end)


class JobRequest(Contract):
    """Body of ``POST /job``: one input, and what is wanted of it."""

    input_url: AnyHttpUrl | None = Field(None, description="Where the worker fetches the input")
    input_sha256: Sha256 | None = Field(None, description="An input uploaded before")
    input_name: str | None = Field(None, max_length=255, description="The input's name, for people")
    interval_cut: str | None = Field(
        None, max_length=4096, description="Cut points in seconds, rising: '300,600,900'"
    )
    all_stems: bool = Field(False, description="Every stem of the preset, not two")
    job_id: JobId | None = Field(None, description="The caller's name for the job")
    preset: PresetName | None = Field(None, description="Default: the worker's own")
    stems: list[StemName] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Of the preset; also no_{stem}, the mix without it, instrumental, and beside "
        "others mix, the sound as it came",
    )
    format: StemFormat | None = Field(
        None, description="Default: wav, and beside it the template's instrumental.mp3"
    )
    bit_depth: BitDepth | None = Field(None, description="Default: 16 for flac, 32f for wav")
    mono: bool = False
    range: Range | None = Field(None, description="Separate a part of the track only")
    clip: Clip = Field(Clip.NONE, description="What becomes of stems beyond full scale")
    strict: bool | None = Field(
        None,
        description="Fail over an input that is damaged, where else what can be decoded is taken "
        "and the rest is silence; default: the worker's own",
    )
    parts: list[Part] | None = Field(
        None,
        max_length=MAX_PARTS,
        description="What of this very job was finished elsewhere: it is taken as it is, and the "
        "rest is separated. Ranges in rising order that do not overlap, all stems of each",
    )

    webhook_url: AnyHttpUrl | None = Field(
        None,
        description="Where the worker posts the body of `GET /job/{id}` when the job is over, "
        "signed after the Standard Webhooks; it is no part of what makes two jobs the same",
    )

    @model_validator(mode="after")
    def _stem_file_holds_four(self) -> Self:
        if self.format is StemFormat.STEM_MP4:
            if set(self.stems or STEM_FILE_STEMS) != set(STEM_FILE_STEMS):
                raise ValueError(
                    f"{self.format} holds {', '.join(STEM_FILE_STEMS)}: leave out stems"
                )
            if self.mono:
                raise ValueError(f"{self.format} is stereo: leave out mono")
        return self

    @model_validator(mode="after")
    def _mix_is_beside_stems(self) -> Self:
        if self.stems is not None and set(self.stems) == {MIX}:
            raise ValueError(f"{MIX} is there beside stems: name one")
        return self

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.input_url is None) == (self.input_sha256 is None):
            raise ValueError("give exactly one of input_url and input_sha256")
        return self

    @model_validator(mode="after")
    def _format_holds_depth(self) -> Self:
        held = BIT_DEPTHS[self.format or StemFormat.WAV]
        if self.bit_depth is not None and self.bit_depth not in held:
            words = " or ".join(depth.value for depth in held) or "none"
            raise ValueError(f"{self.format} holds bit depth {words}, not {self.bit_depth}")
        return self

    @model_validator(mode="after")
    def _cuts_rise(self) -> Self:
        cut_points(self.interval_cut)
        return self

    @model_validator(mode="after")
    def _parts_are_whole(self) -> Self:
        part_ranges(self.parts or [])
        return self


def cut_points(interval_cut: str | None) -> tuple[float, ...]:
    """Cut points in seconds of ``"300,600"``; empty for ``None`` and the empty text.

    Raises:
        ValueError: a part is no decimal number, or the numbers do not rise from above 0.
    """
    parts = [part.strip() for part in (interval_cut or "").split(",") if part.strip()]
    for part in parts:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", part):
            raise ValueError(f"interval_cut: {part!r} is no number of seconds")
    points = tuple(float(part) for part in parts)
    if any(later <= earlier for earlier, later in zip((0.0, *points), points, strict=False)):
        raise ValueError("interval_cut: the cut points must rise, starting above 0")
    return points


def part_ranges(parts: Iterable[Part]) -> dict[tuple[int, int], dict[str, str]]:
    """The ranges that parts hold, in order: the input of each stem.

    Raises:
        ValueError: the ranges do not rise, overlap, or do not hold the same stems, once each.
    """
    ranges: dict[tuple[int, int], dict[str, str]] = {}
    for part in parts:
        frames = part.start_frame, part.end_frame
        if frames not in ranges and ranges and part.start_frame < next(reversed(ranges))[1]:
            raise ValueError("parts: the ranges must rise and not overlap")
        stems = ranges.setdefault(frames, {})
        if part.stem in stems:
            raise ValueError(f"parts: {part.stem} of frames {frames} is there twice")
        stems[part.stem] = part.input_sha256
    if len({frozenset(stems) for stems in ranges.values()}) > 1:
        raise ValueError("parts: each range must hold the same stems")
    return ranges


class JobCreated(Contract):
    """Answer of ``POST /job``. The same job posted again answers with its present status."""

    job_id: JobId
    status: JobStatus
    message: str


class Tasks(Contract):
    """The template's four tasks."""

    models: TaskState = TaskState.NO_WORK
    cutting: TaskState = TaskState.NO_WORK
    inference: TaskState = TaskState.NO_WORK
    conversion: TaskState = TaskState.NO_WORK


class Details(Contract):
    """How far a job is. A segment is the part of a track that is finished and counted as one."""

    completed_segments: int = Field(0, ge=0)
    total_segments: int = Field(0, ge=0)
    percent: float = Field(0.0, ge=0, le=100)
    eta_seconds: float | None = Field(
        None,
        ge=0,
        exclude_if=lambda seconds: seconds is None,  # the template's clients know the rest
        description="How long the separation will take yet, by what it has done; where it is known",
    )


class Progress(Contract):
    """What progress.txt holds, beside the results."""

    state: JobState
    tasks: Tasks
    timestamp: datetime
    elapsed_seconds: float = Field(ge=0)
    details: Details
    error: str | None = None


class ResultFile(Contract):
    """One finished file of a job."""

    name: str
    stem: StemName | None = Field(
        description="What it holds; null for stem.mp4, which holds several, and separation.json"
    )
    size: int = Field(ge=0, description="Bytes")
    sha256: Sha256


class Job(Contract):
    """Answer of ``GET /job/{id}``."""

    job_id: JobId
    status: JobStatus
    state: JobState
    tasks: Tasks
    details: Details
    elapsed_seconds: float = Field(ge=0)
    error: str | None = None
    error_type: str | None = Field(None, description="A stable word: cancelled, not-audio, …")
    preset: PresetName
    input_name: str | None = None
    input_sha256: Sha256 | None = None
    duration_seconds: float | None = Field(
        None, description="Length of the track, or of the range of it that was asked"
    )
    results: list[ResultFile] = []
    results_gone: bool = Field(
        False, description="There were results, which are no longer kept: post the job again"
    )


class Segment(Contract):
    """A part of a track that is finished. Frames are samples per channel from the track's 0."""

    index: int = Field(ge=0, description="Its place among all segments of the job")
    start_frame: int = Field(ge=0)
    end_frame: int = Field(ge=0, description="The first frame behind it")


class Segments(Contract):
    """Answer of ``GET /job/{id}/segments``: what is finished of a job, while it runs already.

    ``GET /job/{id}/segments/{index}/{stem}`` gives the samples of one stem as a WAV file.
    """

    rate: int = Field(ge=1, description="Samples a second")
    channels: int = Field(ge=1, le=2)
    sample_format: BitDepth = Field(
        description="Of the samples as they are kept: those of a wav or flac file are as there; "
        "those that are still to be encoded with loss or turned down are 32f"
    )
    stems: list[StemName] = Field(
        description="What is kept: the stems asked, and for stem.mp4 also the mix"
    )
    start_frame: int = Field(ge=0, description="Where the job's part of the track begins")
    end_frame: int = Field(
        ge=0, description="Where it ends, as far as is known: exact once the job is completed"
    )
    segments: list[Segment] = Field(description="Those that are finished, in order")


class JobRow(Contract):
    """One row of ``GET /jobs``."""

    job_id: JobId
    status: JobStatus
    created_at: datetime
    completed_at: datetime | None = None
    preset: PresetName
    input_name: str | None = None


class Jobs(Contract):
    """Answer of ``GET /jobs``: the newest first; ``total`` counts beyond the limit."""

    jobs: list[JobRow]
    total: int = Field(ge=0)


class Logs(Contract):
    """Answer of ``GET /job/{id}/logs``: the log from a byte offset on, and the next offset."""

    logs: str
    offset: int = Field(ge=0)
    status: JobStatus


class Deleted(Contract):
    """Answer of ``DELETE /job/{id}``."""

    status: Literal["deleted"] = "deleted"
    job_id: JobId


class Health(Contract):
    """Answer of ``GET /health``: the server is up, whether or not it can separate yet."""

    status: Literal["healthy"] = "healthy"
    timestamp: datetime


class Ready(Contract):
    """Answer of ``GET /ready``: 200 when a job would start now, else 503 with the reason."""

    ready: bool
    reason: str | None = None


class WeightsLicence(Contract):
    """On what terms a preset's weights may be used, as far as that is known."""

    file: str = Field(description="The name that the weights were published under")
    granted: bool = Field(description="Whether somebody entitled to it granted a licence")
    name: str
    says: str = Field(description="What is known of the terms, in whose words")


class Preset(Contract):
    """A named recipe, and whether this worker can serve it."""

    name: PresetName
    description: str
    stems: list[StemName]
    available: bool
    lacks: str | None = Field(None, description="What is missing, and how to get it")
    licences: list[WeightsLicence] | None = Field(
        None, description="Of the weights it uses; null: the worker does not tell"
    )
    quality: dict[StemName, float] = Field(
        {}, description="Signal-to-distortion ratio by stem in dB, as others report it"
    )
    cost: float | None = Field(
        None, description="Time for all stems, in times of htdemucs; null: next to none"
    )
    cost_vocals: float | None = Field(None, description="The same for vocals and instrumental")


class Gpu(Contract):
    """The GPU that the networks run on."""

    name: str
    vram_total: int = Field(ge=0, description="Bytes")
    vram_used: int = Field(ge=0, description="Bytes, by whatever runs there; as last told")


class WeightsHere(Contract):
    """A file of weights that is on the worker's disk."""

    file: str = Field(description="The name that the weights were published under")
    sha256: str | None = Field(
        pattern=r"^[0-9a-f]{8}$",
        description="The first 8 digits; null: it has not been read since it came",
    )


class Status(Contract):
    """Answer of ``GET /status``."""

    status: Literal["running"] = "running"
    models_ready: bool
    active_jobs: int = Field(ge=0)
    completed_jobs: int = Field(ge=0, description="Since the worker started")
    uptime_seconds: float = Field(ge=0)
    pending_jobs: int = Field(ge=0)
    queue_limit: int = Field(ge=1)
    version: str
    device: str
    default_preset: PresetName
    presets: list[Preset]
    idle_seconds: float = Field(0.0, ge=0, description="Since there was last anything to do")
    lease_ends_at: datetime | None = Field(
        None, description="When the worker ends its machine, unless a job gets further till then"
    )
    gpu: Gpu | None = Field(None, description="null: there is none")
    weights: list[WeightsHere] = Field([], description="Which are on the disk")
    versions: dict[str, str] = Field({}, description="Of what the worker is made of, by name")


class DeliveryRequest(Contract):
    """Body of ``POST /result/{id}/deliver``: one result, and who is to get it."""

    file: str = Field(max_length=255, description="Name of a result")
    url: AnyHttpUrl = Field(
        description="Takes the file by PUT, as an object's signed URL does. It is kept nowhere"
    )


class SegmentDeliveryRequest(Contract):
    """Body of ``POST /job/{id}/segments/{index}/{stem}/deliver``: who is to get it."""

    url: AnyHttpUrl = Field(description="As of `DeliveryRequest`")


class DeliveryStatus(StrEnum):
    """Where a delivery is."""

    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Contract):
    """How far the delivery of one result is, or of one stem of a segment."""

    file: str = Field(description="Name of the result; of a segment INDEX/STEM.wav")
    status: DeliveryStatus
    sent: int = Field(ge=0, description="Bytes; of a try that failed they are sent again")
    size: int = Field(ge=0, description="Bytes")
    md5: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{32}$",
        description="Of the file, as many stores have it for their ETag; once it is delivered",
    )
    sha256: Sha256 | None = Field(None, description="Of the file, once it is delivered")
    error: str | None = None
    error_type: str | None = Field(None, description="A stable word: delivery-failed")


class Lease(Contract):
    """Answer of ``POST /lease``, which renews it."""

    lease_ends_at: datetime | None = Field(description="null: the worker has no lease to end")


class Input(Contract):
    """Answer of ``PUT /inputs/{sha256}`` and ``GET /inputs/{sha256}``."""

    sha256: Sha256
    size: int = Field(ge=0, description="Bytes")


class FetchRequest(Contract):
    """Body of ``POST /inputs/{sha256}/fetch``: where the worker finds that input."""

    input_url: AnyHttpUrl = Field(description="It is kept nowhere")


class FetchStatus(StrEnum):
    """Where the fetch of an input is."""

    FETCHING = "fetching"
    FETCHED = "fetched"
    FAILED = "failed"


class Fetch(Contract):
    """How far the fetch of an input is."""

    sha256: Sha256
    status: FetchStatus
    size: int = Field(ge=0, description="Bytes that have come; of a try that failed none are kept")
    error: str | None = None
    error_type: str | None = Field(
        None,
        description="A stable word: fetch-failed, digest-mismatch, input-too-large, disk-full",
    )


class Problem(BaseModel):
    """Every error's body (RFC 9457). ``type`` is stable; ``detail`` says what to do next."""

    model_config = ConfigDict(frozen=True)

    type: str
    title: str
    status: int
    detail: str
    choices: list[str] | None = Field(None, description="The names there are, where one was wrong")
