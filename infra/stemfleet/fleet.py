"""The fleet: every slot of every group, the token they share, and what waits for them all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from stemfleet.clouds.label import stack_prefix
from stemfleet.clouds.registry import CLOUDS
from stemfleet.config import ConfigError, FleetConfig, Group, parse_config, parse_values
from stemfleet.ending import Ending
from stemfleet.handover import workers_provider
from stemfleet.identity import Identity, WorkerCertificate
from stemfleet.price import at_most, low_balances, table
from stemfleet.ready import Ready
from stemfleet.slot import gpu_filter, slot_type


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
    ca: pulumi.Output[str] | None
    """What clients trust of workers on bare ports; None: there are none."""
    usd_per_hour: pulumi.Output[float]
    max_usd_per_hour: dict[str, object]
    """In the worst case: ``total``, and by name ``groups``."""

    def __init__(
        self, name: str, config: FleetConfig, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("stemfleet:index:Fleet", name, None, opts)
        _tell_the_price(config)
        with _no_stack_traces():
            ready = self._declare(config)
        self.endpoints = ready.endpoints
        self.usd_per_hour = ready.usdPerHour
        self.max_usd_per_hour = at_most(config)
        self.register_outputs({"usdPerHour": self.usd_per_hour})

    def _declare(self, config: FleetConfig) -> Ready:
        """All resources; what waits for them."""
        child = pulumi.ResourceOptions(parent=self)
        prefix = stack_prefix(pulumi.get_project(), pulumi.get_stack())
        clouds = sorted({group.cloud for group in config.groups})
        identity = Identity("identity", child)
        ending = Ending("ending", {"prefix": prefix, "token": identity.id, "clouds": clouds}, child)
        self.token = identity.token
        handed_over: dict[str, pulumi.Input[str]] = {"token": self.token}
        self.ca = None
        if any(_on_bare_port(group) for group in config.groups):
            certificate = WorkerCertificate("certificate", child)
            self.ca = certificate.ca
            handed_over |= {
                "certificate": certificate.certificate,
                "certificateKey": certificate.key,
                "certificateAuthority": certificate.ca,
            }
        shared: dict[str, Any] = {"prefix": prefix}
        image = _built_image(config, child)
        # A slot's provider depends on the ending for all its slots.
        last = pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[ending]))
        if any(group.rented for group in config.groups):
            provider = workers_provider(handed_over, last)
            child = pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(provider=provider))
        else:
            child = last
            shared |= handed_over
        groups = {group.name: _of_all_slots(group, image) for group in config.groups}
        slots = {
            name: slot_type(group.cloud)(
                name, {"slot": name, **groups[group.name], **shared}, child
            )
            for group in config.groups
            for name in (f"{group.name}-{index}" for index in range(group.count))
        }
        return Ready(
            "ready",
            {
                **shared,
                "timeoutSeconds": config.readyTimeoutSeconds,
                # Only who measures it needs to know: it changes nothing about a machine.
                "groups": {
                    group.name: {**groups[group.name], "minRealtime": group.minRealtime}
                    for group in config.groups
                },
                "slots": [{"slot": name, **slot.machine} for name, slot in slots.items()],
            },
            child,
        )


def _tell_the_price(config: FleetConfig) -> None:
    """In a preview, which asks nothing, the worst case, and a secret that is none; else, before
    the first machine is rented, the accounts that will not last.
    """
    if not any(group.rented for group in config.groups):
        return
    if pulumi.runtime.is_dry_run():
        pulumi.log.info(table(config))
        if os.environ.get("PULUMI_CONFIG_PASSPHRASE") == "":
            pulumi.log.warn(
                "the token of rented workers is encrypted with the empty passphrase: choose one "
                "by `pulumi stack change-secrets-provider passphrase`, and have it in "
                "PULUMI_CONFIG_PASSPHRASE from then on"
            )
    else:
        for warning in low_balances(config):
            pulumi.log.warn(warning)


def _built_image(config: FleetConfig, opts: pulumi.ResourceOptions) -> pulumi.Output[str] | None:
    """The image of the groups that name none, where the stack builds it."""
    if not config.image.build:
        return None
    from stemfleet.image import build_image  # needs what a plain fleet does not

    checkout = Path.cwd().parent  # the engine starts the program where it lies
    return build_image(config.image, checkout, opts)


def _on_bare_port(group: Group) -> bool:
    return CLOUDS[group.cloud].on_bare_port(gpu_filter(group.want))


def _of_all_slots(group: Group, image: pulumi.Output[str] | None) -> dict[str, Any]:
    """The inputs that the slots of a group have in common."""
    return {
        "cloud": group.cloud,
        "preset": group.preset,
        "image": (group.image or image) if group.rented else None,
        "want": group.want,
        "idleMinutes": group.idle_minutes,
        "leaseHours": group.lease_hours,
    }


@contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Let no resource that is declared carry one: state would keep 2 kB for each, for nothing."""
    before = getattr(sys, "tracebacklimit", None)
    sys.tracebacklimit = 1
    try:
        yield
    finally:
        if before is None:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = before
