"""The clouds by name: the one place that a new adapter is added to.

An adapter is imported when it is asked for, with the SDK that it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stemfleet.clouds.base import Cloud, CloudError, GpuFilter

LOCAL = "local"
"""The cloud that is this machine: nothing is paid there, and it has no market."""


@dataclass(frozen=True)
class Registered:
    """A cloud as the rest of the program knows it before it is asked for anything."""

    title: str
    """For people: ``Vast.ai``."""
    machine: str
    """What it calls a machine. State knows slots by it (``vast:Instance``): it stays as it is."""
    adapter: Callable[[], Cloud]
    on_bare_port: Callable[[GpuFilter], bool]
    """Whether workers that it rents for a filter are reached on a port of their machine.

    Nothing there speaks TLS but the worker itself, so it needs a certificate.
    """
    boots_free: bool = False
    """Whether the disk alone is paid for until a machine runs; Vast.ai's billing page says so."""


def _local() -> Cloud:
    from stemfleet.clouds.local import LocalCloud

    return LocalCloud()


def _runpod() -> Cloud:
    from stemfleet.clouds.runpod import RunpodCloud

    return RunpodCloud()


def _vast() -> Cloud:
    from stemfleet.clouds.vast import VastCloud

    return VastCloud()


CLOUDS: dict[str, Registered] = {
    LOCAL: Registered("this machine", "Worker", _local, lambda _: False),
    "runpod": Registered("RunPod", "Pod", _runpod, lambda want: want.direct_port),
    "vast": Registered("Vast.ai", "Instance", _vast, lambda _: True, boots_free=True),
}


def find_cloud(name: str) -> Cloud:
    """The adapter of a cloud.

    Raises:
        CloudError: there is no cloud of that name.
    """
    if name not in CLOUDS:
        raise CloudError(f"there is no cloud {name!r}; there are: {', '.join(CLOUDS)}")
    return CLOUDS[name].adapter()
