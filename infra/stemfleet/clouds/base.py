"""What every cloud adapter does, and how it says that it could not.

A machine is known by its label alone: `Cloud.rent` finds the machine that carries the label before
it rents one, `Cloud.destroy` is done when nothing carries it any more. A list that could not be
read to its end raises; it is never taken for an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class CloudError(Exception):
    """A cloud could not do what was asked. The message says what to do next."""


class NoCapacityError(CloudError):
    """Nothing that meets the filter can be rented now."""


class UnreachableError(CloudError):
    """The cloud gave no answer, or half of one: nothing is known of what it holds."""


class MachineState(StrEnum):
    """Where a machine is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class GpuFilter:
    """What a group asks of a machine. ``None`` means any."""

    names: tuple[str, ...] = ()
    count: int = 1
    vram_gb: float | None = None
    max_usd_per_hour: float | None = None


@dataclass(frozen=True)
class WorkerSpec:
    """What shall run on a machine. ``token`` is the bearer token its worker demands."""

    label: str
    preset: str
    token: str
    image: str | None = None


@dataclass(frozen=True)
class Offer:
    """A rentable machine and its price."""

    id: str
    gpu: str
    usd_per_hour: float
    region: str


@dataclass(frozen=True)
class Machine:
    """A machine that carries one of our labels. ``url`` is None until it is known."""

    id: str
    label: str
    state: MachineState
    url: str | None
    gpu: str
    usd_per_hour: float
    region: str
    detail: str = ""
    """Why it is in this state, or where its log is; for people."""


class Cloud(Protocol):
    """One cloud. Methods are called from several threads at a time.

    Each of them may raise `CloudError`.
    """

    name: str

    def offers(self, want: GpuFilter) -> list[Offer]:
        """What could be rented now, the best first."""
        ...

    def rent(self, want: GpuFilter, spec: WorkerSpec) -> Machine:
        """The machine that carries ``spec.label``: found, else rented. Its boot is not awaited."""
        ...

    def machines(self, label_prefix: str) -> list[Machine]:
        """Every machine whose label starts so, to the last page."""
        ...

    def destroy(self, label: str) -> None:
        """End every machine that carries the label; returns when none does any more."""
        ...

    def balance(self) -> float | None:
        """What the account holds in USD; None where nothing is paid."""
        ...
