"""Bringing a task's samples to its segments: separated here, or taken from where they are finished.

It goes through the span from its beginning to its end, behind what is on the disk already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic

from stemserve.audio.decode import AudioFacts, decode
from stemserve.errors import BadPartError, EmptyRangeError
from stemserve.schema import Segment
from stemserve.schema import Segments as Described
from stemserve.separation.mixdown import separated
from stemserve.separation.outputs import kept
from stemserve.separation.parts import Taken, stretches
from stemserve.separation.progress import Progress
from stemserve.separation.recipes import Recipe
from stemserve.separation.segments import Segments, in_segments
from stemserve.separation.span import Separator, Span
from stemserve.task import Committed, Logged, SeparationTask


@dataclass
class Filling:
    """How the segments of a task are filled. ``ends``: frames of the span at which they end."""

    task: SeparationTask
    recipe: Recipe
    separator: Separator
    facts: AudioFacts
    span: Span
    ends: tuple[int, ...]
    parts: tuple[Taken, ...]
    remarks: list[str]
    """What a person would want to know of the input; grows while it is decoded."""

    @property
    def expected(self) -> int:
        """How many frames there will be, by what the input says of its length."""
        end = self.facts.frames if self.span.end is None else self.span.end
        return max(0, end - self.span.start)

    def fill(self, segments: Segments, progress: Progress, check: Callable[[], None]) -> None:
        """Bring what is not there yet. ``check`` is called now and then, and may raise to stop.

        Raises:
            EmptyRangeError: the track ends before the span begins.
            BadPartError: the track ends before a part begins.
        """
        began, spent, mark = monotonic(), segments.journal.seconds, segments.frames

        def seconds() -> float:
            return spent + monotonic() - began

        progress.emit(Committed(segments=self._described(segments)))
        if mark:
            at = (self.span.start + mark) / self.facts.rate
            progress.emit(Logged(line=f"goes on at {at:.1f} s: the rest was done"))
            progress.find(mark)
        if segments.journal.ended:
            return
        left = Span(self.span.start + mark, self.span.end)
        for stretch in stretches(self.parts, left):
            if isinstance(stretch, Taken):
                self._take(stretch, segments, progress, seconds)
            else:
                self._separate(stretch, segments, progress, seconds, check)
        if not segments.frames:
            raise beyond_the_end(self.facts)
        segments.end(seconds())
        self._tell(segments, progress)

    def _separate(
        self,
        stretch: Span,
        segments: Segments,
        progress: Progress,
        seconds: Callable[[], float],
        check: Callable[[], None],
    ) -> None:
        done = segments.frames

        def remark(line: str) -> None:
            self.remarks.append(line)
            progress.emit(Logged(line=line))

        parts = separated(
            self.separator,
            self.recipe.stems,
            decode(self.task.input_path, self.facts, strict=self.task.strict, remark=remark),
            self.facts.rate,
            tuple(kept(self.task)),
            stretch,
            lambda frames: progress.compute(done + frames),
        )
        for part, ends_segment in in_segments(parts, done, self.ends):
            segments.append(part)
            check()
            if ends_segment:
                segments.commit(seconds())
            self._tell(segments, progress)
            progress.reach(segments.frames)
        end = self.span.start + segments.frames
        if any(end < part.start == stretch.end for part in self.parts):
            raise BadPartError(f"The track ends at frame {end}, before some of the parts begin.")

    def _take(
        self, part: Taken, segments: Segments, progress: Progress, seconds: Callable[[], float]
    ) -> None:
        first, rate = self.span.start, self.facts.rate
        at = first + segments.frames
        line = (
            f"takes {at / rate:.1f} s to {part.end / rate:.1f} s from what was finished elsewhere"
        )
        progress.emit(Logged(line=line))
        inside = (end for end in self.ends if segments.frames < end < part.end - first)
        for end in (*inside, part.end - first):
            start = segments.frames
            segments.take(part.sources, first + start - part.start, end - start)
            segments.commit(seconds())
            self._tell(segments, progress)
            progress.find(segments.frames)

    def _tell(self, segments: Segments, progress: Progress) -> None:
        """Say what is on the disk, if that is more than before."""
        if segments.moved():
            progress.emit(Committed(segments=self._described(segments)))

    def _described(self, segments: Segments) -> Described:
        """What is on the disk."""
        first, journal, stems = self.span.start, segments.journal, kept(self.task)
        done = [end for end in self.ends if end <= journal.frames]
        if journal.ended and (not done or done[-1] < journal.frames):
            done.append(journal.frames)
        return Described(
            rate=self.facts.rate,
            channels=1 if self.task.mono else self.facts.channels,
            sample_format=next(iter(stems.values())).depth,
            stems=list(stems),
            start_frame=first,
            end_frame=first + (journal.frames if journal.ended else self.expected),
            segments=[
                Segment(index=at, start_frame=first + start, end_frame=first + end)
                for at, (start, end) in enumerate(pairwise((0, *done)))
            ],
        )


def beyond_the_end(facts: AudioFacts) -> EmptyRangeError:
    """That the track ends before what is wanted of it begins."""
    return EmptyRangeError(
        f"Nothing lies in that range: the track has {facts.seconds:.3f} s at {facts.rate} Hz."
    )
