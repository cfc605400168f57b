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
from stemserve.separation.segments import Segments
from stemserve.separation.span import Span

NOTES = "notes.txt"


def main() -> None:
    """Serve tasks as ever, and keep notes."""
    undisturbed = filling.Filling._separate

    def noted(
        self: filling.Filling,
        stretch: Span,
        segments: Segments,
        progress: Progress,
        commit: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        notes = self.task.output_dir / NOTES

        def committed() -> None:
            commit()
            note(notes, f"to {segments.frames}")

        note(notes, f"from {segments.frames}")
        undisturbed(self, stretch, segments, progress, committed, check)

    filling.Filling._separate = noted  # type: ignore[method-assign]
    separation.main()


def note(path: Path, line: str) -> None:
    """Append a line."""
    with path.open("a") as notes:
        notes.write(f"{line}\n")


if __name__ == "__main__":
    main()
