"""The real separation process, which notes beside the results what it separates and commits.

It is given as ``separation_command``. ``from N``: it separates from frame N on; ``to N``: up to
frame N all is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stemserve.separation import __main__ as separation
from stemserve.separation import filling
from stemserve.separation.progress import Progress
from stemserve.separation.segments import Journal, Segments
from stemserve.separation.span import Span

NOTES = "notes.txt"


def main() -> None:
    """Serve tasks as ever, and keep notes."""
    separate, store = filling.Filling._separate, Segments._store

    def separated(
        self: filling.Filling,
        stretch: Span,
        segments: Segments,
        progress: Progress,
        seconds: Callable[[], float],
        check: Callable[[], None],
    ) -> None:
        note(self.task.output_dir / NOTES, f"from {segments.frames}")
        separate(self, stretch, segments, progress, seconds, check)

    def stored(self: Segments, journal: Journal) -> None:
        store(self, journal)
        note(self.path("").parents[1] / NOTES, f"to {journal.frames}")

    filling.Filling._separate = separated  # type: ignore[method-assign]
    Segments._store = stored  # type: ignore[method-assign]
    separation.main()


def note(path: Path, line: str) -> None:
    """Append a line."""
    with path.open("a") as notes:
        notes.write(f"{line}\n")


if __name__ == "__main__":
    main()
