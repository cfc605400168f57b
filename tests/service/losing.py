"""The real separation process, whose GPU fails once in mid-job, after a segment is finished.

It is given as ``separation_command``. No GPU is needed: what torch raises is raised in its place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from stemserve.separation import __main__ as separation
from stemserve.separation import filling
from stemserve.separation.progress import Progress
from stemserve.separation.segments import Segments
from stemserve.separation.span import Span

LOST = getattr(torch, "AcceleratorError", RuntimeError)


def main() -> None:
    """Fail in the first task, and be as ever in the next process."""
    undisturbed = filling.Filling._separate

    def failing(
        self: filling.Filling,
        stretch: Span,
        segments: Segments,
        progress: Progress,
        seconds: Callable[[], float],
        check: Callable[[], None],
    ) -> None:
        marker = self.task.output_dir / "failed"

        def checked() -> None:
            check()
            segments._settle()
            if segments.journal.frames and not marker.exists():
                marker.touch()
                raise LOST("CUDA error: an illegal memory access was encountered")

        undisturbed(self, stretch, segments, progress, seconds, checked)

    filling.Filling._separate = failing  # type: ignore[method-assign]
    separation.main()


if __name__ == "__main__":
    main()
