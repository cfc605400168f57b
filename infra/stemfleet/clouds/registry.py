"""The clouds by name. An adapter is imported when it is asked for, with the SDK that it needs."""

from __future__ import annotations

from stemfleet.clouds.base import Cloud, CloudError, GpuFilter

CLOUD_NAMES = ("local", "runpod", "vast")


def on_bare_port(name: str, want: GpuFilter) -> bool:
    """Whether workers that a cloud rents for this filter are reached on a port of their machine.

    Nothing there speaks TLS but the worker itself, so it needs a certificate.
    """
    return name == "vast" or (name == "runpod" and want.direct_port)


def find_cloud(name: str) -> Cloud:
    """The adapter of a cloud.

    Raises:
        CloudError: there is no cloud of that name.
    """
    if name == "local":
        from stemfleet.clouds.local import LocalCloud

        return LocalCloud()
    if name == "runpod":
        from stemfleet.clouds.runpod import RunpodCloud

        return RunpodCloud()
    if name == "vast":
        from stemfleet.clouds.vast import VastCloud

        return VastCloud()
    raise CloudError(f"there is no cloud {name!r}; there are: {', '.join(CLOUD_NAMES)}")
