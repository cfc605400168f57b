"""What all workers of a stack are given alike: the token they demand, the certificate they show.

A dev fleet has it among each slot's inputs. With rented machines there may be a thousand slots, so
there it is configured once, in a provider of the stack's own that all its slots share; a fleet on
this machine does not wait for another provider to start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import ConfigureRequest, ResourceProvider

HANDED_OVER = ("token", "certificate", "certificateKey", "certificateAuthority")

_NAMESPACE = "workers"


class WorkersProvider(ResourceProvider):
    """Of the resources that need what is handed over. Shared by four threads."""

    serialize_as_secret_always = False
    _configured: Mapping[str, str] = {}

    def configure(self, req: ConfigureRequest) -> None:
        """Called once, before anything else."""
        given = {name: req.config.get(f"{_NAMESPACE}:{name}") for name in HANDED_OVER}
        self._configured = {name: value for name, value in given.items() if value}

    def complete(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, and what is handed over."""
        return {**self._configured, **inputs}


def workers_provider(
    handed_over: Mapping[str, pulumi.Input[str]], opts: pulumi.ResourceOptions
) -> pulumi.ProviderResource:
    """The provider by which resources are given this."""
    return pulumi.ProviderResource(
        "pulumi-python",
        "workers",
        {f"{_NAMESPACE}:{name}": value for name, value in handed_over.items()},
        opts,
    )


def kept(props: Mapping[str, Any]) -> dict[str, Any]:
    """What state shall hold of them: not once more what is handed over."""
    return {k: v for k, v in props.items() if k not in HANDED_OVER and v is not None}
