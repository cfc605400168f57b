"""The fleet: every slot of every group, the token they share, and what waits for them all."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from stemfleet.config import ConfigError, FleetConfig, Group, parse_config, parse_values
from stemfleet.identity import Identity
from stemfleet.label import stack_prefix
from stemfleet.ready import Ready
from stemfleet.slot import SLOT_TYPES, Slot


def read_config() -> FleetConfig:
    """The checked configuration of the running stack.

    Raises:
        pulumi.RunError: it cannot be used; one line for each key that is wrong.
    """
    project = pulumi.get_project()
    texts = {**get_config_env(), **CONFIG.get()}
    try:
        stack_prefix(project, pulumi.get_stack())
        return parse_config(parse_values(texts, project), project)
    except (ConfigError, ValueError) as error:
        raise pulumi.RunError(
            f"the stack's configuration cannot be used:\n{error}\n"
            f"Mend it in Pulumi.{pulumi.get_stack()}.yaml; nothing was changed."
        ) from None


class Fleet(pulumi.ComponentResource):
    """All workers of a stack.

    ``endpoints`` are given once every worker has proven itself with a separation.
    """

    endpoints: pulumi.Output[list[dict[str, Any]]]
    token: pulumi.Output[str]
    usd_per_hour: pulumi.Output[float]

    def __init__(
        self, name: str, config: FleetConfig, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("stemfleet:index:Fleet", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        identity = Identity("identity", child)
        prefix = stack_prefix(pulumi.get_project(), pulumi.get_stack())
        slots = [
            _declare(group, index, prefix, identity, child)
            for group in config.groups
            for index in range(group.count)
        ]
        ready = Ready(
            "ready",
            {
                "prefix": prefix,
                "token": identity.token,
                "fingerprint": identity.fingerprint,
                "timeoutSeconds": config.readyTimeoutSeconds,
                "slots": [{**inputs, **slot.facts} for inputs, slot in slots],
            },
            child,
        )
        self.endpoints = ready.endpoints
        self.token = identity.token
        self.usd_per_hour = ready.usdPerHour
        self.register_outputs({"endpoints": self.endpoints, "usdPerHour": self.usd_per_hour})


def _declare(
    group: Group, index: int, prefix: str, identity: Identity, opts: pulumi.ResourceOptions
) -> tuple[dict[str, Any], Slot]:
    slot = f"{group.name}-{index}"
    want = group.gpu.model_dump(exclude_none=True) if group.gpu else {}
    inputs = {
        "slot": slot,
        "cloud": group.cloud,
        "preset": group.preset,
        "image": group.image,
        "want": want,
    }
    shared = {"prefix": prefix, "token": identity.token, "fingerprint": identity.fingerprint}
    return inputs, SLOT_TYPES[group.cloud](slot, {**inputs, **shared}, opts)
