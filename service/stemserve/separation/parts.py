"""Work that was finished elsewhere: which stretches of a task it fills, and which are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stemserve.audio.decode import AudioFacts
from stemserve.audio.wav import WavSamples
from stemserve.errors import BadPartError
from stemserve.separation.outputs import Kept, kept
from stemserve.separation.span import Span
from stemserve.task import SeparationTask, TaskPart


@dataclass(frozen=True)
class Taken:
    """Frames of the track from ``start`` to ``end``, and the files that hold them, by stem."""

    start: int
    end: int
    sources: Mapping[str, WavSamples]


def opened(task: SeparationTask, facts: AudioFacts, span: Span) -> tuple[Taken, ...]:
    """The task's parts, each looked into.

    Raises:
        BadPartError: one is not what this task would have made.
    """
    stems = kept(task)
    for part in task.parts:
        if part.start < span.start or (span.end is not None and part.end > span.end):
            raise BadPartError(f"Frames {_shown(part)} of parts are not in the range of this job.")
        if part.files.keys() != stems.keys():
            raise BadPartError(
                f"Frames {_shown(part)} of parts hold {', '.join(sorted(part.files))};"
                f" this job keeps {', '.join(sorted(stems))}."
            )
    return tuple(
        Taken(
            part.start,
            part.end,
            {stem: _samples(part, stem, stems[stem], facts) for stem in stems},
        )
        for part in task.parts
    )


def stretches(taken: tuple[Taken, ...], span: Span) -> Iterator[Span | Taken]:
    """The span in order: what is to be separated, and what is taken; the first may be half done."""
    at = span.start
    for part in taken:
        if part.end <= at:
            continue
        if part.start > at:
            yield Span(at, part.start)
        yield part
        at = part.end
    if span.end is None or at < span.end:
        yield Span(at, span.end)


def _samples(part: TaskPart, stem: str, how: Kept, facts: AudioFacts) -> WavSamples:
    try:
        found = WavSamples.of(part.files[stem])
    except FileNotFoundError as error:
        raise BadPartError(
            f"Frames {_shown(part)} of {stem} are no longer there. Send them again."
        ) from error
    except ValueError as error:
        raise BadPartError(f"Frames {_shown(part)} of {stem} cannot be taken: {error}.") from error
    wanted = how.depth, facts.rate, 1 if how.mono else facts.channels, part.end - part.start
    if (found.depth, found.rate, found.channels, found.frames) != wanted:
        depth, rate, channels, frames = wanted
        raise BadPartError(
            f"Frames {_shown(part)} of {stem} must be a WAV file of {frames} frames at {rate} Hz,"
            f" {channels} channel(s), {depth}; this has {found.frames} at {found.rate} Hz,"
            f" {found.channels} channel(s), {found.depth}."
        )
    return found


def _shown(part: TaskPart) -> str:
    return f"{part.start} to {part.end}"
