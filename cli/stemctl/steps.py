"""Steps that take more than a second, as people see them: what runs, for how long, how it ended."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

LINE_EVERY_S = 15.0


class Step:
    """``with Step("Build", "about five minutes") as step``: shown while it runs, on stderr.

    On a terminal a line that moves; elsewhere a line at the start, one now and then, one at the
    end. ``seconds`` is how long it took.
    """

    def __init__(self, title: str, remark: str = "") -> None:
        from rich.console import Console

        self.title = title
        self.remark = remark
        self.seconds = 0.0
        self.console = Console(stderr=True, highlight=False)
        self.status = self.console.status("") if self.console.is_terminal else None

    def __enter__(self) -> Self:
        self.started = self.shown = time.monotonic()
        if self.status:
            self.status.start()
        else:
            self.console.print(f"… {self.title}", markup=False)
        self.tell(self.remark)
        return self

    def tell(self, remark: str) -> None:
        """Say how far it is."""
        now = time.monotonic()
        if self.status:
            self.status.update(f"{self.title} [dim]{remark} · {now - self.started:.0f} s[/dim]")
        elif now - self.shown >= LINE_EVERY_S:
            self.shown = now
            self.console.print(f"  {remark} · {now - self.started:.0f} s", markup=False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.monotonic() - self.started
        if self.status:
            self.status.stop()
        mark = "✓" if error is None else "✗"
        self.console.print(f"{mark} {self.title} ({self.seconds:.1f} s)", markup=False)
