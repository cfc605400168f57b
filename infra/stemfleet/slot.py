"""A slot: one place in a group, and behind its label one machine on a cloud.

The label is the resource id. Create finds the machine that carries it before it rents one, so an
update that was cut off adopts on the next try what it had rented; delete is done when nothing
carries it any more. State refers to the provider by this module's name: moving the class strands
the state of existing stacks.
"""

from __future__ import annotations

import re
import types
from functools import cache
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, UpdateResult

from stemfleet.clouds.base import Certificate, GpuFilter, Machine, MachineState, WorkerSpec
from stemfleet.clouds.label import slot_label
from stemfleet.clouds.registry import CLOUDS, find_cloud
from stemfleet.duds import remembered
from stemfleet.errors import shown_plainly
from stemfleet.handover import WorkersProvider, kept
from stemfleet.identity import fingerprint

FIXED = (
    "prefix",
    "slot",
    "cloud",
    "preset",
    "image",
    "idleMinutes",
    "leaseHours",
)
"""Inputs of which a change means another machine, as do those of the GPU filter but for what only
the next machine is chosen by (`stemfleet.clouds.label.NEXT_MACHINE`), and what is handed over."""


def gpu_filter(wire: dict[str, Any]) -> GpuFilter:
    """The filter as it was before the wire made every number a float and every name camelCase."""
    asked = {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in wire.items()}
    count = int(asked.pop("count", 1))
    listed = {name: tuple(value) for name, value in asked.items() if isinstance(value, list)}
    return GpuFilter(**{**asked, **listed, "count": count})


def worker_spec(props: dict[str, Any]) -> WorkerSpec:
    """What shall run in the slot that these inputs, with what is handed over, describe."""
    image, want = props.get("image"), gpu_filter(props["want"])
    limits = {"idle_minutes": props.get("idleMinutes"), "lease_hours": props.get("leaseHours")}
    certificate = None
    if CLOUDS[props["cloud"]].on_bare_port(want):
        certificate = Certificate(
            props["certificate"], props["certificateKey"], props.get("certificateAuthority", "")
        )
    label = slot_label(
        props["prefix"],
        props["slot"],
        preset=props["preset"],
        image=image,
        want=want,
        token=fingerprint(props["token"]),
        certificate=fingerprint(certificate.certificate) if certificate else "",
        **limits,
    )
    return WorkerSpec(label, props["preset"], props["token"], image, certificate, **limits)


def _facts(machine: Machine) -> dict[str, Any]:
    """What a slot tells of its machine, beside its inputs."""
    return {
        "label": machine.label,
        "instanceId": machine.id,
        "gpu": machine.gpu,
        "usdPerHour": machine.usd_per_hour,
        "region": machine.region,
        "failure": machine.detail if machine.state is MachineState.FAILED else "",
    }


class SlotProvider(WorkersProvider):
    """One slot's machine, through its cloud's adapter."""

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        """Another label is another machine; so is a price above a cap that was lowered.

        And so is one in place of a machine that a refresh has found broken.
        """
        replaces = [key for key in FIXED if olds.get(key) != news.get(key)]
        want = gpu_filter(news["want"])
        cap = want.max_usd_per_hour
        if cap is not None and olds.get("usdPerHour", 0) > cap:
            replaces.append("want")
        elif not replaces and self._spec(news).label != olds.get("label"):
            replaces.append("want" if olds.get("want") != news["want"] else "fingerprint")
        if olds.get("failure"):
            replaces.append("failure")
        changes = bool(replaces) or olds.get("want") != news["want"]
        return DiffResult(changes=changes, replaces=replaces, delete_before_replace=True)

    @shown_plainly
    def create(self, props: dict[str, Any]) -> CreateResult:
        """Find or rent, and return at once: from the renting on, nothing here can fail."""
        spec = self._spec(props)
        cloud = props["cloud"]
        machine = find_cloud(cloud).rent(gpu_filter(props["want"]), spec, remembered(cloud))
        return CreateResult(spec.label, {**kept(props), **_facts(machine)})

    @shown_plainly
    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Gone only if its cloud says so: a list that failed raises.

        A machine that has failed is still there, and may still be paid for: it stays in state, and
        the next `up` ends it and puts another in its place.
        """
        machines = [m for m in find_cloud(props["cloud"]).machines(id_) if m.label == id_]
        if not machines:
            return ReadResult("", {})
        alive = [machine for machine in machines if machine.state is not MachineState.FAILED]
        return ReadResult(id_, {**props, **_facts((alive or machines)[0])})

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        """What changes in place holds for the next machine."""
        return UpdateResult({**kept(olds), **kept(news)})

    @shown_plainly
    def delete(self, id_: str, props: dict[str, Any]) -> None:
        """Done when nothing carries the label any more, which may be so already."""
        find_cloud(props["cloud"]).destroy(id_)

    def _spec(self, inputs: dict[str, Any]) -> WorkerSpec:
        return worker_spec(self.complete(inputs))


class Slot(Resource):
    """Base of the slots of all clouds. Its outputs are inputs of it and the machine's facts."""

    label: pulumi.Output[str]
    instanceId: pulumi.Output[str]  # noqa: N815 - outputs are named as Pulumi names them

    def __init__(
        self, name: str, props: pulumi.Inputs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(
            SlotProvider(),
            name,
            {**props, "label": None, "instanceId": None},
            opts,
        )

    @property
    def machine(self) -> dict[str, pulumi.Output[str]]:
        """What tells one machine in the slot from the next."""
        return {"label": self.label, "instanceId": self.instanceId}


@cache
def slot_type(cloud: str) -> type[Slot]:
    """The resource type of a cloud's slots, as ``vast:Instance`` in what the engine shows."""
    machine = CLOUDS[cloud].machine
    return types.new_class(machine, (Slot,), {"module": cloud, "name": machine})
