"""The one resource that waits: once it exists, every worker of the stack has separated a song.

It holds nothing that costs anything, so it may fail without losing anything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from stemfleet.clouds.registry import find_cloud
from stemfleet.errors import shown_plainly
from stemfleet.handover import WorkersProvider, kept
from stemfleet.slot import gpu_filter, worker_spec


class ReadyProvider(WorkersProvider):
    """Waits, on create and whenever a slot has another machine."""

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another set of machines is to be proven. A longer wait alone is no reason to wait."""
        changed = any(olds.get(key) != news.get(key) for key in ("groups", "slots"))
        return DiffResult(changes=changed)

    @shown_plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        """Wait for all."""
        return CreateResult("ready", {**kept(props), **_await_all(self.complete(props), ())})

    @shown_plainly
    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """Wait for all again; machines that have proven themselves before are not disturbed."""
        proven = olds.get("endpoints", ())
        return UpdateResult({**kept(news), **_await_all(self.complete(news), proven)})


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
            opts,
        )


def _await_all(props: dict[str, Any], before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The outputs. ``before``: the endpoints that were proven earlier."""
    # Imported here: only the resource that waits needs an HTTP client, not every slot.
    from stemfleet.watch import Wanted, Watch

    wanted = []
    for slot in (machine["slot"] for machine in props["slots"]):
        group = props["groups"][slot.rpartition("-")[0]]
        spec = worker_spec({**props, **group, "slot": slot})
        least = float(group.get("minRealtime") or 0.0)
        cloud, want = find_cloud(group["cloud"]), gpu_filter(group["want"])
        wanted.append(Wanted(slot, cloud, want, spec, least))
    known = {one["instanceId"]: one["realtime"] for one in before}
    boots = {one["instanceId"]: one["bootSeconds"] for one in before if "bootSeconds" in one}
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
            "bootSeconds": boots.get(one.machine.id, round(one.boot_seconds, 1)),
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
