"""Files on their way: so many at most, and of the latest it is known how they went."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

AT_ONCE = 16
"""As many may be on their way."""
KNOWN = 1000
"""Of so many it is known how they went."""


class Transfer(Protocol):
    """One of them."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""


Key = TypeVar("Key", bound=Hashable)
One = TypeVar("One", bound=Transfer)


class Transfers(Generic[Key, One]):
    """Those of one kind since the worker started. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, One] = {}

    def begin(self, key: Key, new: One) -> One | None:
        """What is under way by that key now: ``new``, or an earlier one; None: too many are."""
        with self._lock:
            before = self._known.get(key)
            if before is not None and not before.over:
                return before
            ended = [known for known, one in self._known.items() if one.over]
            if len(self._known) - len(ended) >= AT_ONCE:
                return None
            for old in [key, *ended[: len(self._known) - KNOWN + 1]]:
                self._known.pop(old, None)
            self._known[key] = new
            return new

    def find(self, key: Key) -> One | None:
        """The latest by that key, if it is known."""
        with self._lock:
            return self._known.get(key)

    def under_way(self) -> list[One]:
        """Those that have not ended."""
        with self._lock:
            return [one for one in self._known.values() if not one.over]
