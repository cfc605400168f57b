"""A track: one input of a run, with all that is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stemctl.wanted import Wanted


@dataclass(frozen=True)
class Track:
    """One input of a run: either ``path`` or ``url`` is set."""

    name: str
    """For people: printable, and short enough for the worker."""
    place: str
    """Where its stems go, under the output folder; no other track of the run has the same."""
    wanted: Wanted
    path: Path | None = None
    url: str | None = None
