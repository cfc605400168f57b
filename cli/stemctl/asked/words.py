"""How a name that there is not is told: with the nearest ones that there are."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def unknown(kind: str, name: str, there: Sequence[str]) -> str:
    """There is no such, what was perhaps meant, and what there is."""
    near = get_close_matches(name, there, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"there is no {kind} {name}: {guess}There is {', '.join(there)}"
