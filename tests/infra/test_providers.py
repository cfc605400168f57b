"""The resources' providers behind the real server that the engine would talk to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf import json_format, struct_pb2
from pulumi.dynamic import DiffResult, ResourceProvider
from pulumi.dynamic.dynamic import serialize_provider
from pulumi.runtime.proto import provider_pb2 as pb
from pulumi.runtime.proto.provider_pb2_grpc import ResourceProviderStub as Stub
from pulumi.runtime.rpc import UNKNOWN
from stemfleet.clouds.base import Certificate, GpuFilter
from stemfleet.clouds.label import identity, parse_label
from stemfleet.clouds.local import LocalCloud
from stemfleet.ending import EndingProvider
from stemfleet.identity import CertificateProvider, IdentityProvider, fingerprint
from stemfleet.ready import ReadyProvider
from stemfleet.slot import SlotProvider, worker_spec

from tests.service.worker import eventually

INFRA = Path(__file__).parents[2] / "infra"
SLOT = {
    "prefix": "stemfleet.dev.",
    "slot": "dev-0",
    "cloud": "local",
    "preset": "center",
    "want": {"count": 1, "vramGb": 8},
    "token": "the-stacks-token",
}


def struct(provider: ResourceProvider, values: dict[str, Any]) -> struct_pb2.Struct:
    """Values as the engine sends them."""
    return json_format.ParseDict(
        {**values, "__provider": serialize_provider(provider)}, struct_pb2.Struct()
    )


def values(message: struct_pb2.Struct) -> dict[str, Any]:
    """Values as the engine gets them."""
    return {k: v for k, v in json_format.MessageToDict(message).items() if k != "__provider"}


@pytest.fixture
def server(root: Path) -> Iterator[Stub]:
    """The dynamic provider server, started as the engine starts it."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pulumi.dynamic", "127.0.0.1:1"],
        cwd=INFRA,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Stub(channel)
    process.kill()
    process.communicate()


def test_a_slot_from_its_renting_to_its_end(server: Stub, root: Path) -> None:
    slot = SlotProvider()
    made = server.Create(pb.CreateRequest(properties=struct(slot, SLOT)))
    outs = values(made.properties)
    cloud = LocalCloud()
    (machine,) = cloud.machines("stemfleet.dev.")
    assert made.id == outs["label"] == machine.label
    assert outs["instanceId"] == machine.id
    assert {key: outs.get(key) for key in SLOT} == {**SLOT, "token": None}

    again = server.Create(pb.CreateRequest(properties=struct(slot, SLOT)))
    assert values(again.properties) == outs, "a create that was cut off adopts what it had rented"

    read = server.Read(pb.ReadRequest(id=made.id, properties=struct(slot, outs)))
    assert (read.id, values(read.properties)) == (made.id, outs)

    server.Delete(pb.DeleteRequest(id=made.id, properties=struct(slot, outs)))
    assert cloud.machines("") == []
    assert list(root.iterdir()) == []
    server.Delete(pb.DeleteRequest(id=made.id, properties=struct(slot, outs)))
    gone = server.Read(pb.ReadRequest(id=made.id, properties=struct(slot, outs)))
    assert gone.id == ""


def test_a_slot_of_which_nothing_is_known_is_neither_gone_nor_made(
    server: Stub, root: Path
) -> None:
    root.write_text("a file where a directory should be")
    state = struct(SlotProvider(), {**SLOT, "label": "stemfleet.dev.dev-0.0a1b2c3d4e5f60"})
    calls = [
        lambda: server.Read(
            pb.ReadRequest(id="stemfleet.dev.dev-0.0a1b2c3d4e5f60", properties=state)
        ),
        lambda: server.Delete(
            pb.DeleteRequest(id="stemfleet.dev.dev-0.0a1b2c3d4e5f60", properties=state)
        ),
        lambda: server.Create(pb.CreateRequest(properties=state)),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()  # type: ignore[no-untyped-call]
        told = caught.value.details()
        assert str(root) in told
        assert "Traceback" not in told
        assert "the-stacks-token" not in told


def test_a_slots_worker_that_died_stays_in_state_until_another_takes_its_place(
    server: Stub, root: Path
) -> None:
    slot = SlotProvider()
    inputs = {**SLOT, "preset": "--help"}
    made = server.Create(pb.CreateRequest(properties=struct(slot, inputs)))
    state = struct(slot, values(made.properties))
    read = eventually(
        lambda: server.Read(pb.ReadRequest(id=made.id, properties=state)),
        lambda read: values(read.properties)["failure"],
    )
    assert read.id == made.id
    assert "its process has ended" in values(read.properties)["failure"]
    told = diff(slot, values(read.properties), inputs)
    assert told.replaces == ["failure"]
    assert told.delete_before_replace


def diff(provider: ResourceProvider, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
    """What the provider says of a change, seen through the wire's numbers."""
    return provider.diff("id", values(struct(provider, olds)), values(struct(provider, news)))


STATE = {
    **{key: value for key, value in SLOT.items() if key != "token"},
    "instanceId": "0123",
    "gpu": "this machine",
    "usdPerHour": 0.4,
    "region": "local",
}


def state() -> dict[str, Any]:
    """A slot as it stands in state, with its real label."""
    return {**STATE, "label": worker_spec(values(struct(SlotProvider(), SLOT))).label}


def test_a_slot_as_declared_does_not_change() -> None:
    told = diff(SlotProvider(), state(), SLOT)
    assert not told.changes
    assert not told.replaces


@pytest.mark.parametrize(
    ("changed", "replaced"),
    [
        ({"preset": "htdemucs"}, "preset"),
        ({"image": "ghcr.io/x"}, "image"),
        ({"token": "another"}, "fingerprint"),
        ({"token": UNKNOWN}, "fingerprint"),
        ({"idleMinutes": 20}, "idleMinutes"),
        ({"leaseHours": 6}, "leaseHours"),
        ({"want": {"count": 2, "vramGb": 8}}, "want"),
        ({"want": {"count": 1, "vramGb": 8, "maxUsdPerHour": 0.3}}, "want"),
    ],
)
def test_what_cannot_change_in_place_is_replaced_the_old_one_first(
    changed: dict[str, Any], replaced: str
) -> None:
    told = diff(SlotProvider(), state(), {**SLOT, **changed})
    assert told.changes
    assert told.replaces == [replaced]
    assert told.delete_before_replace


@pytest.mark.parametrize(
    "asked", [{"maxUsdPerHour": 0.5}, {"reliability": 0.99}, {"inetDownMbps": 500}]
)
def test_what_only_the_next_machine_is_chosen_by_is_an_update_that_keeps_all_else(
    asked: dict[str, float],
) -> None:
    news = {**SLOT, "want": {"count": 1, "vramGb": 8, **asked}}
    told = diff(SlotProvider(), state(), news)
    assert told.changes
    assert not told.replaces
    outs = SlotProvider().update("id", state(), news).outs
    assert outs == {**state(), "want": news["want"]}


def test_a_token_is_made_once_and_known_by_its_fingerprint() -> None:
    first, second = IdentityProvider().create({}), IdentityProvider().create({})
    assert first.outs is not None
    assert second.outs is not None
    assert first.outs["token"] != second.outs["token"]
    assert first.id != second.id
    assert len(first.outs["token"]) >= 43
    assert first.outs["token"] not in first.id
    assert not IdentityProvider().diff("id", first.outs, {}).changes


def test_the_end_of_a_stack_is_that_of_every_worker_rented_for_it(cloud: LocalCloud) -> None:
    stacks = {token: {**SLOT, "token": token} for token in ("ours", "another computer's")}
    slots = [{**stacks["ours"], "slot": "dev-1"}, *stacks.values()]
    for slot in slots:
        cloud.rent(GpuFilter(), worker_spec(slot))
    cloud.rent(GpuFilter(), worker_spec({**stacks["ours"], "prefix": "stemfleet.develop."}))
    inputs = {
        "prefix": SLOT["prefix"],
        "clouds": ["local"],
        "token": fingerprint("ours"),
    }
    ending = EndingProvider()
    ending.delete("ending", inputs)
    left = [parse_label(machine.label) for machine in cloud.machines("")]
    assert sorted((one.stack, one.slot) for one in left if one) == [
        ("dev", "dev-0"),
        ("develop", "dev-0"),
    ]
    (others,) = [one for one in left if one and one.stack == "dev"]
    assert others.identity == identity(fingerprint("another computer's"))
    ending.delete("ending", inputs)

    assert not ending.diff("ending", inputs, inputs).changes
    more = {**inputs, "clouds": ["local", "vast"]}
    assert ending.diff("ending", inputs, more).changes
    assert not ending.diff("ending", inputs, more).replaces
    assert ending.update("ending", inputs, more).outs == more


def test_a_certificate_is_made_once_by_an_authority_that_signs_no_other() -> None:
    first, second = CertificateProvider().create({}), CertificateProvider().create({})
    assert first.outs is not None
    assert second.outs is not None
    assert first.id != second.id
    assert not CertificateProvider().diff("id", first.outs, {}).changes
    ca, leaf = (
        x509.load_pem_x509_certificate(first.outs[name].encode()) for name in ("ca", "certificate")
    )
    leaf.verify_directly_issued_by(ca)
    keys = [text for text in first.outs.values() if "PRIVATE KEY" in text]
    assert keys == [first.outs["key"]], "the authority's own key is kept nowhere"
    key = serialization.load_pem_private_key(keys[0].encode(), None)
    assert key.public_key() == leaf.public_key() != ca.public_key()


VAST = {**SLOT, "cloud": "vast", "idleMinutes": 15, "leaseHours": 12}
SHOWN = {"certificate": "PEM", "certificateKey": "KEY"}


def test_a_worker_on_a_bare_port_is_given_the_certificate_and_every_limit() -> None:
    spec = worker_spec(values(struct(SlotProvider(), {**VAST, **SHOWN})))
    assert spec.certificate == Certificate("PEM", "KEY")
    assert (spec.idle_minutes, spec.lease_hours) == (15.0, 12.0)
    others: list[dict[str, Any]] = [
        {**SHOWN, "certificate": "ANOTHER PEM"},
        {**SHOWN, "leaseHours": 6},
    ]
    labels = {worker_spec({**VAST, **other}).label for other in others}
    assert len(labels | {spec.label}) == 3


def test_a_worker_that_is_reached_otherwise_is_given_none() -> None:
    for cloud in ("local", "runpod"):
        spec = worker_spec({**SLOT, **SHOWN, "cloud": cloud})
        assert spec.certificate is None
        assert spec.label == worker_spec({**SLOT, "cloud": cloud}).label


def test_what_is_handed_over_may_be_configured_once_for_all_slots(server: Stub, root: Path) -> None:
    given = json_format.ParseDict({"workers:token": SLOT["token"]}, struct_pb2.Struct())
    server.Configure(pb.ConfigureRequest(args=given))
    inputs = {key: value for key, value in SLOT.items() if key != "token"}
    made = server.Create(pb.CreateRequest(properties=struct(SlotProvider(), inputs)))
    assert made.id == worker_spec(values(struct(SlotProvider(), SLOT))).label
    told = server.Diff(
        pb.DiffRequest(id=made.id, olds=made.properties, news=struct(SlotProvider(), inputs))
    )
    assert told.changes == pb.DiffResponse.DIFF_NONE


def test_waiting_again_is_for_another_machine_and_not_for_a_longer_wait() -> None:
    slots = [{"slot": "dev-0", "instanceId": "0123", "label": "x"}]
    groups = {"dev": {"cloud": "local", "preset": "center", "want": {}, "minRealtime": 2}}
    olds = {"groups": groups, "slots": slots, "timeoutSeconds": 60, "endpoints": []}
    same = {"groups": groups, "slots": slots, "timeoutSeconds": 90}
    assert not diff(ReadyProvider(), olds, same).changes
    for other in ([], [{**slots[0], "instanceId": "4567"}], [*slots, *slots], UNKNOWN):
        assert diff(ReadyProvider(), olds, {**same, "slots": other}).changes
    faster = {"dev": {**groups["dev"], "minRealtime": 3}}
    assert diff(ReadyProvider(), olds, {**same, "groups": faster}).changes


def test_nothing_of_a_provider_is_kept_in_state_but_its_name() -> None:
    providers = (
        SlotProvider(),
        ReadyProvider(),
        IdentityProvider(),
        CertificateProvider(),
        EndingProvider(),
    )
    for provider in providers:
        assert len(serialize_provider(provider)) < 100
        assert provider.serialize_as_secret_always is False
