"""Wrong names get an answer that helps: the names there are, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """All ``choices``, those most like ``name`` first; equals stay in their order."""
    matcher = SequenceMatcher(b=name, autojunk=False)

    def likeness(choice: str) -> float:
        matcher.set_seq1(choice)
        return matcher.ratio()

    return sorted(choices, key=likeness, reverse=True)
