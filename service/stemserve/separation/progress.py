"""How far a task is: frames done, turned into the segments and percents of the job's events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from stemserve.schema import Details, Tasks, TaskState
from stemserve.separation.device import vram_used
from stemserve.task import Advanced, Event

_REPORT_SECONDS = 0.25

Emit = Callable[[Event], None]


@dataclass
class Progress:
    """Turns frames done into events: one at every segment, else a few a second."""

    emit: Emit
    rate: int = 1
    expected: int = 0
    ends: tuple[int, ...] = ()
    """Frames at which segments end, the last left out."""
    frames: int = 0
    computed: float = 0.0
    states: dict[str, TaskState] = field(default_factory=dict)
    _reported: float = 0.0
    _found: float = 0.0
    """Of the frames, how many were there already: no work was done for them."""
    _began: float = 0.0
    _left_s: float | None = None

    def begin(self, task: str) -> None:
        """One of the template's tasks begins, which ends the one before."""
        self.states = dict.fromkeys(self.states, TaskState.DONE) | {task: TaskState.RUNNING}
        self._began, self._left_s = monotonic(), None
        self.report()

    def cut(self, rate: int, expected: int, ends: tuple[int, ...]) -> None:
        """The input is known: so many frames are expected, in segments that end there."""
        self.rate, self.expected, self.ends = rate, expected, ends
        self.report()

    def find(self, frames: int) -> None:
        """So many frames are written; those since the last call were not separated now."""
        self._found += frames - self.frames
        self.reach(frames)

    def reach(self, frames: int) -> None:
        """So many frames are separated and written."""
        segments = self._completed()
        self.frames = frames
        self._estimate()
        if self._completed() > segments:
            self.report()
        else:
            self.breathe()

    def compute(self, frames: float) -> None:
        """The work done amounts to so many frames, though they may not be finished yet."""
        self.computed = frames
        self._estimate()
        self.breathe()

    def breathe(self) -> None:
        """Report if the last report was a while ago."""
        if monotonic() - self._reported > _REPORT_SECONDS:
            self.report()

    def end(self) -> None:
        """All is done."""
        self.states = dict.fromkeys(self.states, TaskState.DONE)
        total = len(self.ends) + 1
        self._send(Details(completed_segments=total, total_segments=total, percent=100))

    def report(self) -> None:
        """Say how far it is."""
        total = len(self.ends) + 1 if self.expected else 0
        # The packets' count is not exact for every codec: 100 is said when all is in place.
        done = max(self.frames, self.computed)
        share = min(done / self.expected, 0.99) if self.expected else 0
        self._send(
            Details(
                completed_segments=self._completed(),
                total_segments=total,
                percent=round(100 * share, 2),
                eta_seconds=self._left_s,
            )
        )

    def _estimate(self) -> None:
        """Say how long the rest takes, if it goes on as it went; told anew only by work done."""
        done, spent = max(self.frames, self.computed), monotonic() - self._began
        if done > self._found and spent > _REPORT_SECONDS:
            left = max(0.0, self.expected - done)
            self._left_s = round(left * spent / (done - self._found), 1)

    def _completed(self) -> int:
        return sum(end <= self.frames for end in self.ends)

    def _send(self, details: Details) -> None:
        self._reported = monotonic()
        seconds = self.expected / self.rate if self.expected else None
        self.emit(
            Advanced(
                tasks=Tasks(**self.states),
                details=details,
                duration_seconds=seconds,
                vram_used=vram_used(),
            )
        )
