"""What a person sees of several tracks being separated: bars on a terminal, else plain lines.

Everything goes to standard error, so that standard output holds results alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from stemserve.task import Advanced, Logged

_STEP = 10
"""Percent between two lines, where no bar can be drawn."""


class Watcher(Protocol):
    """Is told what happens."""

    def begins(self, name: str) -> None:
        """A track, or a preset of it, begins."""

    def note(self, event: Advanced | Logged) -> None:
        """The separation says something of it."""

    def says(self, line: str) -> None:
        """A line for people."""


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._told = 0.0

    def begins(self, name: str) -> None:
        self._name, self._told = name, 0.0

    def note(self, event: Advanced | Logged) -> None:
        if isinstance(event, Logged):
            self.says(f"{self._name}: {event.line}")
        elif event.details.percent >= self._told + _STEP:
            self._told = event.details.percent
            self.says(f"{self._name}: {self._told:.0f} %")

    def says(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Bars(_Lines):
    def __init__(self, console: Console, bars: Progress, total: int) -> None:
        super().__init__(console)
        self._bars = bars
        self._all = bars.add_task("", total=100 * total)
        self._before = -1

    def begins(self, name: str) -> None:
        super().begins(name)
        self._before += 1
        self._bars.update(self._all, description=name, completed=100 * self._before)

    def note(self, event: Advanced | Logged) -> None:
        if isinstance(event, Logged):
            super().note(event)
        else:
            self._bars.update(self._all, completed=100 * self._before + event.details.percent)


@contextmanager
def shown(total: int) -> Iterator[Watcher]:
    """Show ``total`` tracks as they are separated."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        yield _Bars(console, bars, total)
