"""A track: one input of a run, with all that is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stemctl.asked.wanted import Wanted


@dataclass(frozen=True)
class Track:
    """One input of a run: either ``path`` or ``url`` is set."""

    name: str
    """For people: printable, and short enough for the worker."""
    place: str
    """Where its stems go, under the output folder; no other track of the run has the same.

    A folder; or, where the user's own pattern says where each goes, that path with ``*`` for the
    stem, which is for people only.
    """
    wanted: Wanted
    files: tuple[str, ...]
    """Where each of the files that are wanted goes, under the output folder."""
    path: Path | None = None
    url: str | None = None

    @property
    def own_folder(self) -> bool:
        """Whether ``place`` is a folder that holds this track and nothing else."""
        return "*" not in self.place
