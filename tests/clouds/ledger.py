"""What an emulated cloud remembers: every machine ever rented, who ended it, what was billed.

Nothing is ever removed from it, so a leak cannot hide.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class Contract:
    """One machine that was rented. Times are the cloud's; ``ended_by``: whose key, or the cloud."""

    id: str
    label: str
    host: str
    created_at: float
    ended_at: float | None = None
    ended_by: str = ""
    usd: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    """What its container was given."""

    @property
    def alive(self) -> bool:
        """Whether it is still paid for."""
        return self.ended_at is None


@dataclass(frozen=True)
class Call:
    """One request that the cloud answered: its endpoint's name, when, and with which status."""

    at: float
    endpoint: str
    path: str
    status: int


class Ledger:
    """All contracts of an account, and all calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contracts: dict[str, Contract] = {}
        self._calls: list[Call] = []

    def open(self, contract: Contract) -> None:
        """A machine was rented."""
        with self._lock:
            self._contracts[contract.id] = contract

    def close(self, id_: str, at: float, by: str) -> None:
        """A machine has ended; the first end counts."""
        with self._lock:
            contract = self._contracts[id_]
            if contract.alive:
                contract.ended_at, contract.ended_by = at, by

    def bill(self, id_: str, usd: float) -> None:
        """Add to what a machine has cost."""
        with self._lock:
            self._contracts[id_].usd += usd

    def record(self, call: Call) -> None:
        """Note a request."""
        with self._lock:
            self._calls.append(call)

    def contracts(self, prefix: str = "") -> list[Contract]:
        """Every machine ever rented under labels that begin so, the oldest first."""
        with self._lock:
            return [c for c in self._contracts.values() if c.label.startswith(prefix)]

    def alive(self, prefix: str = "") -> list[Contract]:
        """Those that are still paid for."""
        return [contract for contract in self.contracts(prefix) if contract.alive]

    def calls(self, endpoint: str | None = None) -> list[Call]:
        """Every request, or those to one endpoint."""
        with self._lock:
            return [call for call in self._calls if endpoint in (None, call.endpoint)]

    def most_alive(self, prefix: str = "") -> int:
        """The most machines that were ever paid for at the same time."""
        changes = [
            change
            for one in self.contracts(prefix)
            for change in (
                [(one.created_at, 1)] + ([] if one.ended_at is None else [(one.ended_at, -1)])
            )
        ]
        most = count = 0
        for _, change in sorted(changes):
            count += change
            most = max(most, count)
        return most
