"""What the tests of RunPod share: labels, a spec, and what must hold whatever went wrong."""

from __future__ import annotations

from stemfleet.clouds.base import Certificate, GpuFilter, WorkerSpec

from tests.clouds.faults import Request
from tests.clouds.ledger import Contract
from tests.clouds.runpod import RunpodEmulator
from tests.clouds.runpod_wish import GpuWish, Wish

PREFIX = "stemfleet.dev."
LABEL = f"{PREFIX}pods-0.0a1b2c3d4e5f60"
TOKEN = "the-stacks-token"
ANY = GpuFilter()
FOREIGN = ("someone's notebook", "stemfleet.prod.pods-0.0a1b2c3d4e5f60", f"{LABEL}4", LABEL[:-1])
"""Names of pods that are not ours, and some that nearly are."""


def spec(label: str = LABEL, certificate: Certificate | None = None) -> WorkerSpec:
    """What shall run in a slot."""
    return WorkerSpec(label, "center", TOKEN, "ghcr.io/example/worker:1", certificate)


def put(cloud: RunpodEmulator, name: str, gpu: str = "NVIDIA RTX A4000") -> str:
    """Rent a pod as somebody else would; its id."""
    wish = Wish(name=name, image="ubuntu", gpu=GpuWish(id=gpu), env={"STEMSERVE_TOKEN": TOKEN})
    return cloud.rent(wish, Request("POST", "/v2/pods")).id


def alive(cloud: RunpodEmulator, label: str = LABEL) -> list[Contract]:
    """The pods under exactly this label that are still paid for."""
    return [one for one in cloud.ledger.alive() if one.label == label]


def check_invariants(cloud: RunpodEmulator) -> None:
    """Foreign pods live, and the account's key is in no container."""
    for contract in cloud.ledger.contracts():
        if contract.label in FOREIGN:
            assert contract.alive, f"{contract.label} was ended by {contract.ended_by}"
        assert cloud.key not in "".join(contract.environment.values())
