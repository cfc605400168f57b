"""The clouds by name. An adapter is imported when it is asked for, with the SDK that it needs."""

from __future__ import annotations

from stemfleet.clouds.base import Cloud, CloudError

CLOUD_NAMES = ("local", "runpod", "vast")


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
