"""What every cloud adapter does, and how it says that it could not.

A machine is known by its label alone: `Cloud.rent` finds the machine that carries the label before
it rents one, `Cloud.destroy` is done when nothing carries it any more. A list that could not be
read to its end raises; it is never taken for an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class CloudError(Exception):
    """A cloud could not do what was asked. The message says what to do next."""


class NoCapacityError(CloudError):
    """Nothing that meets the filter can be rented now."""


class NoCreditError(CloudError):
    """The account cannot pay for what was asked, or has reached its spending limit."""


class BadKeyError(CloudError):
    """The cloud's API key is missing, or the cloud does not accept it."""


class RateLimitedError(CloudError):
    """The cloud went on asking for patience after every bounded retry."""


class RefusedError(CloudError):
    """The cloud understood and said no: the request itself has to change."""


class UnreachableError(CloudError):
    """The cloud gave no answer, or half of one: nothing is known of what it holds."""


class MachineState(StrEnum):
    """Where a machine is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"


@dataclass(frozen=True)
class GpuFilter:
    """What a group asks of a machine. ``None`` and empty mean any."""

    names: tuple[str, ...] = ()
    """Friendly names, the same on every cloud: ``RTX 4090``, ``H100 SXM``."""
    count: int = 1
    vram_gb: float | None = None
    """At least so much for each GPU, as cards are sold: a 24 GB card counts as 24."""
    max_usd_per_hour: float | None = None
    """For the whole machine, disk included."""
    reliability: float | None = None
    """At least; 0 to 1. Only where a cloud tells it."""
    verified: bool | None = None
    """True: verified hosts on Vast.ai, secure cloud on RunPod. False: the others alone."""
    regions: tuple[str, ...] = ()
    """Country codes (``SE``), or a cloud's own name of a region."""
    not_regions: tuple[str, ...] = ()
    inet_down_mbps: float | None = None
    disk_gb: float | None = None
    cuda: float | None = None
    """The driver supports at least this version."""
    spot: bool = False
    """An interruptible machine, for a bid of ``bid_usd_per_hour`` (None: the least possible)."""
    bid_usd_per_hour: float | None = None
    direct_port: bool = False
    """The worker's port is reached directly (TLS by the stack's certificate), not by a proxy."""


@dataclass(frozen=True)
class Certificate:
    """What a worker on a bare port serves HTTPS with; PEM texts, ``key`` a secret."""

    certificate: str
    key: str
    ca: str = ""
    """What its clients trust (`stemfleet.clouds.trust`); a worker is not given it."""


@dataclass(frozen=True)
class WorkerSpec:
    """What shall run on a machine. ``token`` is the bearer token its worker demands."""

    label: str
    preset: str
    token: str
    image: str | None = None
    certificate: Certificate | None = None
    idle_minutes: float | None = None
    """The worker ends its own machine when it was idle for so long."""
    lease_hours: float | None = None
    """The worker ends its own machine so long after its start, unless the lease is renewed."""


@dataclass(frozen=True)
class Offer:
    """A rentable machine and its price."""

    id: str
    gpu: str
    """The friendly name."""
    usd_per_hour: float
    """Of the whole machine with the disk that the filter asks for; for spot, the bid."""
    region: str
    gpu_count: int = 1
    vram_gb: float | None = None
    """Of each GPU."""
    host: str = ""
    """The physical machine, where the cloud tells it: what is avoided after a dud."""
    reliability: float | None = None
    verified: bool | None = None
    inet_down_mbps: float | None = None
    disk_gb: float | None = None
    cuda: float | None = None
    direct_port: bool | None = None
    spot: bool = False


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
    host: str = ""
    """The physical machine, where the cloud tells it."""
    since: float | None = field(default=None, compare=False)
    """When it was rented, in seconds of `time.time`, where the cloud tells it."""


class Cloud(Protocol):
    """One cloud. Methods are called from several threads at a time.

    Each of them may raise `CloudError`.
    """

    name: str

    def offers(self, want: GpuFilter) -> list[Offer]:
        """What could be rented now, the best first."""
        ...

    def rent(
        self, want: GpuFilter, spec: WorkerSpec, avoid: frozenset[str] = frozenset()
    ) -> Machine:
        """The machine that carries ``spec.label``: found, else rented. Its boot is not awaited.

        Never on a host in ``avoid``.
        """
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
