"""RunPod as a cloud, when nothing goes wrong: what is found, asked for, told and ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from stemfleet.clouds.base import (
    BadKeyError,
    Certificate,
    GpuFilter,
    Machine,
    MachineState,
    NoCapacityError,
    RefusedError,
    WorkerSpec,
)
from stemfleet.clouds.registry import find_cloud
from stemfleet.clouds.runpod import RunpodCloud
from stemfleet.clouds.runpod_market import friendly

from tests.clouds.runpod import SECURE, RunpodEmulator
from tests.infra.runpods import ANY, FOREIGN, LABEL, PREFIX, TOKEN, alive, put, spec
from tests.service.worker import eventually


def the_machine(cloud: RunpodCloud) -> Machine:
    """The one machine of the stack."""
    (machine,) = cloud.machines(PREFIX)
    return machine


def booted(cloud: RunpodCloud) -> Machine:
    """The one machine of the stack, once it runs."""
    return eventually(
        lambda: the_machine(cloud), lambda machine: machine.state is MachineState.RUNNING
    )


def test_a_pod_from_its_renting_to_its_end(runpod: RunpodEmulator) -> None:
    cloud = find_cloud("runpod")
    assert cloud.name == "runpod"
    rented = cloud.rent(ANY, spec())
    assert rented.label == LABEL
    assert rented.gpu == "RTX 4090"
    assert rented.usd_per_hour == 0.34
    assert rented.state is MachineState.STARTING
    machine = booted(RunpodCloud())
    assert machine.id == rented.id
    assert machine.region == "US-TX-1, US"
    answer = httpx.get(f"{machine.url}/ready", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.is_success

    cloud.destroy(LABEL)
    assert cloud.machines(PREFIX) == []
    assert runpod.ledger.alive() == []
    cloud.destroy(LABEL)


def test_the_container_is_told_what_the_worker_has_to_know(runpod: RunpodEmulator) -> None:
    told = WorkerSpec(
        LABEL, "center", TOKEN, "ghcr.io/x", Certificate("CERT\n", "KEY\n"), 15.0, 12.5
    )
    runpod.faults.arm_fate("unhealthy")
    RunpodCloud().rent(GpuFilter(direct_port=True), told)
    pod = runpod.named(LABEL)
    assert pod.env == {
        "STEMSERVE_LABEL": LABEL,
        "STEMSERVE_TOKEN": TOKEN,
        "STEMSERVE_PRESET": "center",
        "STEMSERVE_HOST": "0.0.0.0",
        "STEMSERVE_PORT": "8185",
        "STEMSERVE_TLS_CERT": "CERT\n",
        "STEMSERVE_TLS_KEY": "KEY\n",
        "STEMSERVE_IDLE_MINUTES": "15",
        "STEMSERVE_LEASE_HOURS": "12.5",
    }
    assert (pod.image, pod.args, pod.ports) == ("ghcr.io/x", "", ["8185/tcp"])
    RunpodCloud().rent(ANY, spec(f"{PREFIX}pods-1.0a1b2c3d4e5f60"))
    plain = runpod.named(f"{PREFIX}pods-1.0a1b2c3d4e5f60")
    assert plain.ports == ["8185/http"]
    assert not [name for name in plain.env if re.search("TLS|IDLE|LEASE", name)]


def test_renting_again_finds_the_pod(runpod: RunpodEmulator, forget: Callable[[], None]) -> None:
    rented = RunpodCloud().rent(ANY, spec())
    assert RunpodCloud().rent(ANY, spec()).id == rented.id
    forget()
    assert RunpodCloud().rent(ANY, spec()).id == rented.id
    assert len(runpod.ledger.contracts()) == 1


def test_many_who_rent_one_slot_at_once_get_one_pod(runpod: RunpodEmulator) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: RunpodCloud().rent(ANY, spec()).id, range(8)))
    assert len(ids) == 1
    assert len(runpod.ledger.contracts()) == 1


@pytest.mark.usefixtures("slowly")
def test_a_whole_fleet_costs_hardly_more_requests_than_pods(runpod: RunpodEmulator) -> None:
    labels = [f"{PREFIX}pods-{i}.0a1b2c3d4e5f60" for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda label: RunpodCloud().rent(ANY, spec(label)), labels))
    assert len(runpod.ledger.calls("create")) == 40
    assert len(runpod.ledger.calls()) < 40 * 1.3


def test_a_limit_of_requests_is_kept_before_it_is_met(runpod: RunpodEmulator) -> None:
    runpod.limits = {"minute": (12, 60)}
    labels = [f"{PREFIX}pods-{i}.0a1b2c3d4e5f60" for i in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda label: RunpodCloud().rent(ANY, spec(label)), labels))
    assert len(runpod.ledger.alive()) == 20
    # Threads that were on their way when the limit was reached may meet it once, not each time.
    assert len([call for call in runpod.ledger.calls() if call.status == 429]) <= 3 * 2


def test_a_list_is_read_to_its_last_page(runpod: RunpodEmulator) -> None:
    runpod.page_size = 3
    for name in FOREIGN:
        put(runpod, name)
    labels = {f"{PREFIX}pods-{i}.0a1b2c3d4e5f60" for i in range(8)}
    for label in labels:
        put(runpod, label)
    assert {machine.label for machine in RunpodCloud().machines(PREFIX)} >= labels
    assert len(runpod.ledger.calls("list")) == 4


def test_only_pods_with_exactly_the_label_are_ended(runpod: RunpodEmulator) -> None:
    for name in FOREIGN:
        put(runpod, name)
    cloud = RunpodCloud()
    cloud.rent(ANY, spec())
    cloud.destroy(LABEL)
    assert sorted(one.label for one in runpod.ledger.alive()) == sorted(FOREIGN)


def test_of_several_with_one_label_one_is_kept(runpod: RunpodEmulator) -> None:
    first, _, _ = (put(runpod, LABEL) for _ in range(3))
    assert RunpodCloud().rent(ANY, spec()).id == first
    assert [one.id for one in alive(runpod)] == [first]


def test_a_pod_that_failed_ends_before_another_is_rented(runpod: RunpodEmulator) -> None:
    runpod.faults.arm_fate("exits")
    failed = put(runpod, LABEL)
    runpod.clock.advance(60)
    assert the_machine(RunpodCloud()).state is MachineState.FAILED
    assert RunpodCloud().rent(ANY, spec()).id != failed
    assert len(alive(runpod)) == 1
    assert runpod.ledger.most_alive() == 1


@pytest.mark.parametrize(
    ("fate", "state"),
    [
        ("", MachineState.RUNNING),
        ("stuck-provisioning", MachineState.STARTING),
        ("stuck-starting", MachineState.STARTING),
        ("no-runtime", MachineState.STARTING),
        ("no-port", MachineState.STARTING),
        ("other-port", MachineState.STARTING),
        ("no-address", MachineState.STARTING),
        ("spaces", MachineState.RUNNING),
        ("error", MachineState.FAILED),
        ("exits", MachineState.FAILED),
        ("unhealthy", MachineState.RUNNING),
        ("crash-loop", MachineState.RUNNING),
    ],
)
def test_where_a_pod_is_in_its_life(runpod: RunpodEmulator, fate: str, state: MachineState) -> None:
    runpod.faults.arm_fate(fate)
    cloud = RunpodCloud()
    cloud.rent(GpuFilter(direct_port=True), spec())
    runpod.clock.advance(3600)
    machine = the_machine(cloud)
    assert machine.state is state
    assert (machine.url is not None) == (state is MachineState.RUNNING)
    assert machine.url is None or re.fullmatch(r"http://127\.0\.0\.1:\d+", machine.url)
    assert machine.id in machine.detail


def test_a_direct_port_is_mapped_late_and_may_move(runpod: RunpodEmulator) -> None:
    cloud = RunpodCloud()
    runpod.boot_s = (4.0, 4.0, 1e9)
    rented = cloud.rent(GpuFilter(direct_port=True), spec(certificate=None))
    runpod.clock.advance(60)
    assert (rented.url, the_machine(cloud).url) == (None, None)
    runpod.boot_s = (0.0, 0.0, 0.0)
    url = booted(cloud).url
    pod = runpod.named(LABEL)
    assert pod.running is not None
    assert url == f"http://127.0.0.1:{pod.running.port}"
    runpod.reset(pod)
    assert booted(cloud).url not in (None, url)


def test_a_worker_with_a_certificate_is_reached_by_https(runpod: RunpodEmulator) -> None:
    runpod.faults.arm_fate("unhealthy")
    RunpodCloud().rent(GpuFilter(direct_port=True), spec(certificate=Certificate("C", "K")))
    runpod.clock.advance(60)
    assert str(the_machine(RunpodCloud()).url).startswith("https://127.0.0.1:")


def test_where_the_proxy_serves_a_pod(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEMFLEET_RUNPOD_PROXY")
    machine = RunpodCloud().rent(ANY, spec())
    assert machine.url == f"https://{machine.id}-8185.proxy.runpod.net"


def test_a_machine_that_failed_is_not_taken_again(runpod: RunpodEmulator) -> None:
    cloud, want = RunpodCloud(), GpuFilter(names=("RTX 4090",), verified=False)
    runpod.clock.advance(60)
    cloud.rent(want, spec())
    runpod.clock.advance(60)
    host = the_machine(cloud).host
    assert host == runpod.named(LABEL).host
    cloud.destroy(LABEL)

    again = cloud.rent(want, spec(), frozenset({host}))
    assert again.host not in ("", host)
    assert [one.id for one in alive(runpod)] == [again.id]
    assert runpod.ledger.most_alive() == 2, "held while the other was asked for"


def test_where_only_machines_that_failed_are_left_none_is_taken(runpod: RunpodEmulator) -> None:
    runpod.hosts = 1
    cloud, want = RunpodCloud(), GpuFilter(names=("RTX 4090",), verified=False)
    cloud.rent(want, spec())
    host = runpod.named(LABEL).host
    cloud.destroy(LABEL)
    with pytest.raises(NoCapacityError, match="no longer any instances"):
        cloud.rent(want, spec(), frozenset({host}))
    assert runpod.ledger.alive() == []
    machine = cloud.rent(GpuFilter(names=("RTX 4090",)), spec(), frozenset({host}))
    assert runpod.named(LABEL).cloud == SECURE
    assert [one.id for one in alive(runpod)] == [machine.id]


def test_many_who_look_at_once_share_a_list(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemfleet.clouds.runpod.LOOK_SECONDS", 1e6)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: RunpodCloud().machines(LABEL), range(40)))
    assert len(runpod.ledger.calls("list")) == 1


def test_offers_come_with_the_cheapest_work_first(runpod: RunpodEmulator) -> None:
    offers = RunpodCloud().offers(ANY)
    assert [one.gpu for one in offers[:2]] == ["RTX 4090", "RTX 3090"]
    assert {one.gpu for one in offers} == {"RTX 4090", "RTX 3090", "H100 SXM", "RTX A4000"}
    assert offers[0].verified is False
    # The disk is in the price: 40 GB at 0.10 $ a GB and month.
    assert offers[0].usd_per_hour == pytest.approx(0.34 + 40 * 0.10 / 730, abs=1e-4)


@pytest.mark.parametrize(
    ("want", "gpus", "places"),
    [
        (GpuFilter(names=("rtx_4090",)), {"RTX 4090"}, {"US-TX-1", "EU-RO-1", "US-KS-2"}),
        (GpuFilter(names=("H100 SXM",), regions=("SE",)), {"H100 SXM"}, {"EU-SE-1"}),
        (GpuFilter(names=("NVIDIA H100 80GB HBM3",)), {"H100 SXM"}, {"EU-SE-1", "US-KS-2"}),
        (GpuFilter(vram_gb=48), {"H100 SXM"}, {"EU-SE-1", "US-KS-2"}),
        (GpuFilter(verified=False), {"RTX 4090", "RTX 3090"}, {"US-TX-1"}),
        (GpuFilter(regions=("EU",), vram_gb=24, max_usd_per_hour=1), None, {"EU-RO-1"}),
        (GpuFilter(regions=("EU-SE-1",), not_regions=("RO",)), None, {"EU-SE-1"}),
        (GpuFilter(not_regions=("US", "SE")), None, {"EU-RO-1"}),
        (GpuFilter(count=8, verified=True, regions=("RO",)), None, {"EU-RO-1"}),
        (GpuFilter(direct_port=True, names=("RTX 3090",)), {"RTX 3090"}, {"EU-RO-1"}),
    ],
)
def test_what_a_filter_lets_through(
    runpod: RunpodEmulator, want: GpuFilter, gpus: set[str] | None, places: set[str]
) -> None:
    offers = RunpodCloud().offers(want)
    assert {one.region.partition(",")[0] for one in offers} == places
    assert gpus is None or {one.gpu for one in offers} == gpus
    cloud = RunpodCloud()
    cloud.rent(want, spec())
    pod = runpod.named(LABEL)
    assert pod.data_center in places
    assert friendly(pod.kind.id) in {one.gpu for one in offers}
    assert pod.count == want.count


def test_a_filter_that_nothing_meets_says_what_excludes(runpod: RunpodEmulator) -> None:
    want = GpuFilter(names=("RTX 4090",), max_usd_per_hour=0.1)
    for asked in (lambda: RunpodCloud().offers(want), lambda: RunpodCloud().rent(want, spec())):
        with pytest.raises(NoCapacityError, match="maxUsdPerHour excludes 8"):
            asked()
    with pytest.raises(NoCapacityError, match="verified excludes 6, regions excludes 4"):
        RunpodCloud().offers(GpuFilter(verified=False, regions=("SE",), count=8))
    assert runpod.ledger.contracts() == []


def test_a_cuda_version_is_asked_for_and_met(runpod: RunpodEmulator) -> None:
    RunpodCloud().rent(GpuFilter(cuda=12.4), spec())
    with pytest.raises(NoCapacityError):
        RunpodCloud().offers(GpuFilter(cuda=13))


def test_a_spot_pod_is_rented_for_the_least_bid_or_the_groups(runpod: RunpodEmulator) -> None:
    cloud = RunpodCloud()
    machine = cloud.rent(GpuFilter(spot=True, names=("RTX 4090",)), spec())
    pod = runpod.named(LABEL)
    assert (pod.spot, pod.cost, pod.kind.name) == (True, 0.2, "RTX 4090")
    assert pod.env["STEMSERVE_TOKEN"] == TOKEN
    assert machine.usd_per_hour == 0.2
    assert booted(cloud).id == machine.id

    other = f"{PREFIX}pods-1.0a1b2c3d4e5f60"
    want = GpuFilter(spot=True, bid_usd_per_hour=0.5, count=2, regions=("RO",))
    cloud.rent(want, spec(other))
    pod = runpod.named(other)
    assert (pod.cost, pod.count, pod.data_center, pod.cloud) == (0.5, 2, "EU-RO-1", SECURE)

    with pytest.raises(NoCapacityError, match=r"bid of 0.05 \$/h is too low.*0.1 \$/h"):
        cloud.rent(GpuFilter(spot=True, bid_usd_per_hour=0.05), spec(f"{PREFIX}x-0.0"))


def test_what_a_string_holds_breaks_no_query(runpod: RunpodEmulator) -> None:
    odd = 'quote " backslash \\ newline \n brace } ü'
    token = WorkerSpec(LABEL, odd, TOKEN, "ghcr.io/x")
    RunpodCloud().rent(GpuFilter(spot=True), token)
    assert runpod.named(LABEL).env["STEMSERVE_PRESET"] == odd


@pytest.mark.usefixtures("slowly")
def test_a_price_above_the_cap_is_not_kept(runpod: RunpodEmulator) -> None:
    cloud, want = RunpodCloud(), GpuFilter(max_usd_per_hour=0.5)
    cloud.account.market(want)
    runpod.kinds = [
        replace(kind, secure=kind.secure * 3, community=kind.community * 3) for kind in runpod.kinds
    ]
    with pytest.raises(NoCapacityError, match=r"RTX 4090 \(community cloud\): is billed at 1.02"):
        cloud.rent(want, spec())
    assert runpod.ledger.alive() == []
    assert runpod.ledger.most_alive() == 1


def test_the_balance_is_told(runpod: RunpodEmulator) -> None:
    runpod.credit = 12.5
    assert RunpodCloud().balance() == pytest.approx(12.5)


def test_a_pod_needs_an_image(runpod: RunpodEmulator) -> None:
    with pytest.raises(RefusedError, match="image"):
        RunpodCloud().rent(ANY, WorkerSpec(LABEL, "center", TOKEN))
    assert runpod.ledger.calls() == []


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
def test_what_is_no_key_is_told_before_it_is_sent(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", key)
    with pytest.raises(BadKeyError, match="RUNPOD_API_KEY") as caught:
        RunpodCloud().machines(PREFIX)
    assert not key or key not in str(caught.value)
    assert runpod.ledger.calls() == []


def test_a_key_may_end_in_a_line_break(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", f"{runpod.key}\n")
    assert RunpodCloud().machines(PREFIX) == []


@pytest.mark.parametrize(
    ("id_", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM4"),
        ("A100 SXM", "A100 SXM4"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIE"),
        ("NVIDIA H100 PCIe", "H100 PCIE"),
        ("NVIDIA H200", "H200"),
        ("H200 SXM", "H200"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA L40S", "L40S"),
        ("rtx_3090", "RTX 3090"),
        ("AMD Instinct MI300X OAM", "AMD Instinct MI300X OAM"),
    ],
)
def test_a_gpu_has_one_name_on_every_cloud(id_: str, name: str) -> None:
    assert friendly(id_) == name
    assert friendly(name) == name
