"""Who is told how a run goes on: the display, the ledger, a program that reads events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stemctl.dispatch.crew import Trip
from stemctl.dispatch.report import Outcome, Report
from stemctl.fleet.stack import Endpoint


class Watcher(Protocol):
    """Is told of everything, from the event loop's thread; it must not block."""

    def joined(self, endpoint: Endpoint) -> None:
        """A worker gets tracks from now on."""

    def aside(self, slot: str, reason: str) -> None:
        """A worker gets none any more."""

    def moved(self, trip: Trip) -> None:
        """A trip has begun, or has got further: see its stage and fraction."""

    def over(self, trip: Trip, error: str | None) -> None:
        """A trip has ended; ``error``: why it came to nothing."""

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""

    def said(self, message: str) -> None:
        """Something that people should know now."""

    def finished(self, report: Report) -> None:
        """The run has ended."""


class Watchers:
    """Several as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._all = watchers

    def joined(self, endpoint: Endpoint) -> None:
        """A worker gets tracks from now on."""
        for watcher in self._all:
            watcher.joined(endpoint)

    def aside(self, slot: str, reason: str) -> None:
        """A worker gets none any more."""
        for watcher in self._all:
            watcher.aside(slot, reason)

    def moved(self, trip: Trip) -> None:
        """A trip has got further."""
        for watcher in self._all:
            watcher.moved(trip)

    def over(self, trip: Trip, error: str | None) -> None:
        """A trip has ended."""
        for watcher in self._all:
            watcher.over(trip, error)

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        for watcher in self._all:
            watcher.ended(outcome)

    def said(self, message: str) -> None:
        """Something that people should know."""
        for watcher in self._all:
            watcher.said(message)

    def finished(self, report: Report) -> None:
        """The run has ended."""
        for watcher in self._all:
            watcher.finished(report)
