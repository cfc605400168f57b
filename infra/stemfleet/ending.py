"""The stack's last act: to end what was rented for it and is in no state.

An update that was killed may leave such machines. The next `up` adopts them by their labels; after
a `destroy` nobody could, as the token that their labels stand for goes with the state.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from stemfleet.clouds.label import identity, parse_label
from stemfleet.clouds.registry import find_cloud
from stemfleet.errors import shown_plainly


class EndingProvider(ResourceProvider):
    """Does nothing until its resource is deleted."""

    serialize_as_secret_always = False

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """In place, always."""
        changed = any(olds.get(key) != news[key] for key in ("prefix", "token", "clouds"))
        return DiffResult(changes=changed)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """There is nothing to do yet."""
        return CreateResult("ending", props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """The fleet is on other clouds now."""
        return UpdateResult(news)

    @shown_plainly
    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """What the state knows has ended before, as it depends on this."""
        for name in props["clouds"]:
            cloud = find_cloud(name)
            for machine in cloud.machines(props["prefix"]):
                parts = parse_label(machine.label)
                if parts is not None and parts.identity == identity(props["token"]):
                    cloud.destroy(machine.label)


class Ending(Resource, module="stemfleet", name="Ending"):
    """What all slots depend on.

    Inputs: the ``prefix`` of the stack's labels, the fingerprint of its ``token``, its ``clouds``.
    """

    def __init__(
        self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(EndingProvider(), name, props, opts)
