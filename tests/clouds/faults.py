"""What goes wrong in an emulated cloud: armed per endpoint, with a count and a predicate.

An emulator names its endpoints (``create``, ``list``, …) and asks `Faults.take` at each request.
Beside requests, a machine that is being made has a fate: armed for the endpoint ``machine``, it is
a plain name that only the emulator understands (``stuck-loading``, ``outbid``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MACHINE = "machine"
"""The endpoint of fates: asked once for each machine that is made."""


@dataclass(frozen=True)
class Request:
    """A request as a predicate sees it. For a machine's fate: the request that makes it."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    """Parsed JSON, or None."""


@dataclass(frozen=True)
class Fault:
    """What happens instead of, or after, what was asked for."""

    status: int | None = None
    """The answer's status; None: the real answer."""
    body: str | dict[str, Any] = ""
    """A dict is sent as JSON, a text as it is."""
    headers: Mapping[str, str] = field(default_factory=dict)
    lands: bool = False
    """Whether what was asked for is done all the same, before this answer hides it."""
    reset: bool = False
    """The connection breaks instead of an answer."""
    delay: float = 0.0
    """Real seconds before the answer."""
    fate: str = ""
    """Something that the emulator knows by name."""


@dataclass
class _Armed:
    endpoint: str
    fault: Fault
    left: int
    skip: int
    when: Callable[[Request], bool]


class Faults:
    """Faults waiting for their request. Each fires at most ``count`` times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self.fired: list[tuple[str, Fault]] = []
        """What has gone wrong so far: a test shows by it that its fault was met at all."""

    def arm(
        self,
        endpoint: str,
        fault: Fault,
        *,
        count: int = 1,
        skip: int = 0,
        when: Callable[[Request], bool] = lambda _request: True,
    ) -> None:
        """Let the next ``count`` requests that match meet the fault, after ``skip`` that do not."""
        with self._lock:
            self._armed.append(_Armed(endpoint, fault, count, skip, when))

    def arm_fate(self, fate: str, *, count: int = 1, skip: int = 0) -> None:
        """Let the next machines that are made have this fate."""
        self.arm(MACHINE, Fault(fate=fate), count=count, skip=skip)

    def disarm(self) -> None:
        """From now on all goes well."""
        with self._lock:
            self._armed.clear()

    def take(self, endpoint: str, request: Request) -> Fault | None:
        """The fault that this request meets; the one armed first, if there are several."""
        with self._lock:
            for armed in self._armed:
                if armed.endpoint != endpoint or not armed.when(request):
                    continue
                if armed.skip:
                    armed.skip -= 1
                    continue
                armed.left -= 1
                if not armed.left:
                    self._armed.remove(armed)
                self.fired.append((endpoint, armed.fault))
                return armed.fault
        return None
