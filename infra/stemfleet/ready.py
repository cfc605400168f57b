"""The one resource that waits: once it exists, every worker of the stack has separated a song.

It holds nothing that costs anything, so it may fail without losing anything.
"""

from __future__ import annotations

import sys
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from stemfleet.clouds.registry import find_cloud
from stemfleet.errors import shown_plainly
from stemfleet.slot import gpu_filter, worker_spec

SHARED = (
    "prefix",
    "token",
    "fingerprint",
    "certificate",
    "certificateKey",
    "certificateAuthority",
    "certificateFingerprint",
)
"""Inputs that are the same for all slots."""


class ReadyProvider(ResourceProvider):
    """Waits, on create and whenever a slot has another machine."""

    serialize_as_secret_always = False

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another set of machines is to be proven. A longer wait alone is no reason to wait."""
        keys = ("slots", "fingerprint", "certificateFingerprint")
        changed = any(olds.get(key) != news.get(key) for key in keys)
        return DiffResult(changes=changed)

    @shown_plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait for all."""
        return CreateResult("ready", {**props, **_await_all(props, {})})

    @shown_plainly
    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Wait for all again; machines that have proven themselves before are not disturbed."""
        known = {one["instanceId"]: one["realtime"] for one in olds.get("endpoints", ())}
        return UpdateResult({**news, **_await_all(news, known)})


class Ready(Resource, module="stemfleet", name="Ready"):
    """Outputs: ``endpoints``, one object for each slot, and ``usdPerHour`` of them all."""

    endpoints: pulumi.Output[list[dict[str, Any]]]
    usdPerHour: pulumi.Output[float]  # noqa: N815

    def __init__(
        self, name: str, props: dict[str, Any], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(
            ReadyProvider(),
            name,
            {**props, "endpoints": None, "usdPerHour": None},
            pulumi.ResourceOptions.merge(
                opts,
                pulumi.ResourceOptions(additional_secret_outputs=["token", "certificateKey"]),
            ),
        )


def _await_all(props: dict[str, Any], known: dict[str, float]) -> dict[str, Any]:
    # Imported here: only the resource that waits needs an HTTP client, not every slot.
    from stemfleet.watch import Wanted, Watch

    shared = {key: props[key] for key in SHARED if key in props}
    wanted = [
        Wanted(
            slot["slot"],
            find_cloud(slot["cloud"]),
            gpu_filter(slot["want"]),
            worker_spec({**slot, **shared}),
            float(slot.get("minRealtime") or 0.0),
        )
        for slot in props["slots"]
    ]
    proven = Watch(props["prefix"], wanted, float(props["timeoutSeconds"]), known, _say).run()
    endpoints = [
        {
            "slot": one.slot,
            "url": one.machine.url,
            "cloud": one.cloud,
            "gpu": one.machine.gpu,
            "usdPerHour": one.machine.usd_per_hour,
            "region": one.machine.region,
            "instanceId": one.machine.id,
            "realtime": one.realtime,
            "ownCertificate": one.own_certificate,
        }
        for one in proven
    ]
    return {
        "endpoints": endpoints,
        "usdPerHour": sum(one.machine.usd_per_hour for one in proven),
    }


def _say(line: str) -> None:
    """To the engine, which shows what a provider prints among the diagnostics of the update."""
    print(line, file=sys.stderr, flush=True)
