"""A long track: which of its parts are home, who computes which, and what nobody does yet.

A part is one or more finished segments, as a worker keeps them: a file for each stem, WAV or what
tells where that is. The parts of a track lie in a folder of their own beside the output, each moved
in when it is whole, and outlive the run that fetched them. Frames are counted from the track's
first.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from stemserve.schema import BitDepth, StemName

ABOUT = "about.json"
SEGMENT_SECONDS = 300
"""After so much of a track a worker's segments end, unless it was told otherwise."""


class Span(NamedTuple):
    """Frames of a track, from ``start`` up to ``end``."""

    start: int
    end: int

    @property
    def frames(self) -> int:
        """How many."""
        return self.end - self.start


class About(BaseModel):
    """What all parts of a track have in common."""

    model_config = ConfigDict(frozen=True)

    rate: int
    start_frame: int
    end_frame: int
    """What is wanted of the track; where that goes to its end, an estimate until a job is over."""
    sample_format: BitDepth
    stems: tuple[StemName, ...]


@dataclass(frozen=True)
class Part:
    """Samples that are home: a file for each stem."""

    span: Span
    files: dict[str, Path]


class LongTrack:
    """The state of one track. Who a claim belongs to is for the caller to say, by any object."""

    def __init__(self, folder: Path, about: About) -> None:
        self.folder = folder
        self.about = about
        self.parts: list[Part] = []
        self.claims: dict[object, Span] = {}
        self.grid = SEGMENT_SECONDS * about.rate
        """Frames between the ends of segments."""

    @classmethod
    def begin(cls, folder: Path, about: About) -> LongTrack:
        """A track of which nothing is home yet; blocks, may raise OSError."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        track = cls(folder, about)
        track._write()
        return track

    @classmethod
    def found(cls, folder: Path) -> LongTrack | None:
        """What an earlier run has fetched of a track; blocks."""
        try:
            about = About.model_validate_json((folder / ABOUT).read_bytes())
        except (OSError, ValidationError):
            return None
        track = cls(folder, about)
        for path in folder.iterdir():
            start, _, end = path.name.partition("-")
            if not start.isdigit() or not end.isdigit():
                continue
            if {one.stem for one in path.iterdir()} == set(about.stems):
                track._take(Span(int(start), int(end)))
            else:  # somebody has been there
                shutil.rmtree(path, ignore_errors=True)
        return track

    @property
    def whole(self) -> Span:
        """All that is wanted of the track."""
        return Span(self.about.start_frame, self.about.end_frame)

    def settle_end(self, end_frame: int) -> None:
        """The track's end is known exactly now; until then it was an estimate."""
        before = self.about.end_frame
        if end_frame == before:
            return
        self.about = self.about.model_copy(update={"end_frame": end_frame})
        for owner, claim in self.claims.items():
            if claim.end == before:
                self.claims[owner] = Span(claim.start, end_frame)
        self._write()

    def _write(self) -> None:
        new = self.folder / f"{ABOUT}.new"
        new.write_text(self.about.model_dump_json())
        new.replace(self.folder / ABOUT)

    def staged(self, span: Span, owner: str) -> Path:
        """A fresh folder for a part that is on its way; blocks, may raise OSError."""
        folder = self.folder / f"coming-{owner}-{span.start}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def add(self, span: Span, staged: Path) -> bool:
        """Take a whole part in; False: somebody else has brought these frames. Blocks."""
        if any(span.start < p.span.end and p.span.start < span.end for p in self.parts):
            shutil.rmtree(staged, ignore_errors=True)
            return False
        place = self.folder / f"{span.start}-{span.end}"
        try:
            staged.rename(place)
        except OSError:
            if not place.is_dir():
                raise
            shutil.rmtree(staged, ignore_errors=True)  # somebody else is just doing the same
            return False
        self._take(span)
        return True

    def _take(self, span: Span) -> None:
        place = self.folder / f"{span.start}-{span.end}"
        files = {path.stem: path for path in place.iterdir()}
        if not self.parts and span.end < self.about.end_frame and span.start % span.frames == 0:
            self.grid = span.frames  # a whole segment, such as they are at these workers
        self.parts.append(Part(span, files))
        self.parts.sort(key=lambda part: part.span)

    def missing(self, within: Span | None = None) -> list[Span]:
        """What is not home, of the whole track or of a span of it."""
        return _without(within or self.whole, [part.span for part in self.parts])

    def drop(self, part: Part) -> None:
        """Forget a part, which is missing again then; blocks."""
        if part not in self.parts:
            return
        self.parts.remove(part)
        shutil.rmtree(self.folder / f"{part.span.start}-{part.span.end}", ignore_errors=True)

    def free(self) -> list[Span]:
        """What is neither home nor anybody's."""
        claimed = sorted(self.claims.values())
        return [gap for span in self.missing() for gap in _without(span, claimed)]

    def split(self, owner: object, at: int, speeds: tuple[float, float]) -> Span | None:
        """The rear of a claim, for a helper to take, so that both would end at the same time.

        Args:
            owner: Whose claim it is.
            at: The frame that the owner has reached.
            speeds: The owner's and the helper's, in one unit.

        Returns:
            None where there is no end of a segment between; nothing has been claimed then.
        """
        claim = self.claims[owner]
        own, helper = speeds
        cut = at + (claim.end - at) * own / (own + helper)
        cut_at = max(round(cut / self.grid), at // self.grid + 1) * self.grid
        return Span(cut_at, claim.end) if cut_at < claim.end else None

    def give(self, owner: object, helper: object, span: Span) -> None:
        """Let a helper have what `split` has found."""
        self.claims[owner] = Span(self.claims[owner].start, span.start)
        self.claims[helper] = span

    @property
    def seconds_missing(self) -> float:
        """How much sound is not home."""
        return sum(span.frames for span in self.missing()) / self.about.rate

    def remove(self) -> None:
        """Forget all parts; blocks."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _without(span: Span, taken: Sequence[Span]) -> list[Span]:
    """What is left of a span without others, which are in order."""
    left, at = [], span.start
    for other in taken:
        if other.start > at:
            left.append(Span(at, min(other.start, span.end)))
        at = max(at, other.end)
    left.append(Span(at, span.end))
    return [one for one in left if one.frames > 0]
