"""Vast.ai's adapter against the emulated market: renting, listing, ending, and every fault."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from stemfleet.clouds import vast, vast_api, vast_market
from stemfleet.clouds.base import (
    BadKeyError,
    Certificate,
    CloudError,
    GpuFilter,
    Machine,
    MachineState,
    NoCapacityError,
    NoCreditError,
    RateLimitedError,
    RefusedError,
    UnreachableError,
    WorkerSpec,
)
from stemfleet.clouds.vast import VastCloud

from tests.clouds.clock import Clock
from tests.clouds.faults import Fault
from tests.clouds.machines import RealWorker
from tests.clouds.vast import VastEmulator
from tests.clouds.vast_market import make_market, make_offer
from tests.infra.vast_faults import (
    AUTH_401,
    AUTH_404,
    BLIND,
    GONE_V0,
    HTML,
    OVERCOME,
    SLOW_SECONDS,
    Arm,
    arms,
    both,
    refusal,
)
from tests.service.worker import eventually

PREFIX = "stemfleet.dev."
FAST = 200.0
TOKEN = "the-stacks-token"
WANT = GpuFilter(vram_gb=24)


def spec(slot: str = "gpu-0", token: str = TOKEN, **more: object) -> WorkerSpec:
    """What shall run in a slot."""
    values = {"image": "ghcr.io/example/worker:1"} | more
    return WorkerSpec(f"{PREFIX}{slot}.0a1b2c3d4e5f60", "center", token, **values)  # type: ignore[arg-type]


LABEL = spec().label


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    """The emulated cloud, in which somebody else's machine runs from the beginning."""
    with VastEmulator(clock=Clock(FAST), offers=make_market(60)) as cloud:
        cloud.rent_by_hand("stemfleet.development")
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud
        assert [c.label for c in cloud.ledger.alive("stemfleet.development")], "a foreign machine"


@pytest.fixture
def cloud(market: VastEmulator) -> VastCloud:
    """The adapter."""
    return VastCloud()


def another_process() -> VastCloud:
    """The adapter as in a process that knows nothing of what this one did."""
    vast._accounts.clear()
    return VastCloud()


def when(cloud: VastCloud, state: MachineState, detail: str = "") -> Machine:
    """The machine, once it is in this state, and that is why."""
    return eventually(
        lambda: cloud.machines(PREFIX)[0],
        lambda machine: machine.state is state and detail in machine.detail,
        deadline_s=20,
    )


def test_a_machine_from_its_offer_to_its_end(market: VastEmulator, cloud: VastCloud) -> None:
    best, *_ = cloud.offers(WANT)
    machine = cloud.rent(WANT, spec())
    assert (machine.label, machine.state, machine.url) == (LABEL, MachineState.STARTING, None)
    assert (machine.gpu, machine.host, machine.usd_per_hour, machine.region) == (
        best.gpu,
        best.host,
        best.usd_per_hour,
        best.region,
    )
    assert cloud.rent(WANT, spec()).id == machine.id
    running = when(cloud, MachineState.RUNNING)
    assert running.id == machine.id
    assert running.usd_per_hour == pytest.approx(machine.usd_per_hour)
    worker = market.find(LABEL).worker
    assert worker is not None
    assert running.url == f"http://127.0.0.1:{worker.port}"
    cloud.destroy(LABEL)
    cloud.destroy(LABEL)
    assert cloud.machines(PREFIX) == []
    (contract,) = market.ledger.contracts(PREFIX)
    assert (contract.alive, contract.ended_by) == (False, "the account's key")
    assert 0 < contract.usd < 1
    assert cloud.balance() == pytest.approx(market.credit, abs=0.1)


def test_what_a_container_is_given(market: VastEmulator, cloud: VastCloud) -> None:
    cloud.rent(WANT, spec())
    plain = market.find(LABEL).request
    assert plain["runtype"] == "args"
    assert plain["args"] == ["serve"]
    assert plain["cancel_unavail"] is True
    assert plain["disk"] == vast_market.DISK_GB
    assert plain["env"] == {
        "-p 8185:8185": "1",
        "STEMSERVE_HOST": "0.0.0.0",
        "STEMSERVE_PORT": "8185",
        "STEMSERVE_LABEL": LABEL,
        "STEMSERVE_PRESET": "center",
        "STEMSERVE_TOKEN": TOKEN,
    }
    full = spec("gpu-1", certificate=Certificate("PEM", "KEY"), idle_minutes=15.0, lease_hours=12.5)
    cloud.rent(WANT, full)
    given = market.find(full.label).request["env"]
    assert given["STEMSERVE_TLS_CERT"] == "PEM"
    assert given["STEMSERVE_TLS_KEY"] == "KEY"
    assert given["STEMSERVE_IDLE_MINUTES"] == "15"
    assert given["STEMSERVE_LEASE_HOURS"] == "12.5"
    secure = eventually(lambda: [m.url for m in cloud.machines(full.label) if m.url])
    assert secure[0].startswith("https://127.0.0.1:")


def test_what_would_be_refused_is_not_asked_for(market: VastEmulator, cloud: VastCloud) -> None:
    with pytest.raises(RefusedError, match="set the group's `image`"):
        cloud.rent(WANT, spec(image=None))
    with pytest.raises(RefusedError, match="environment is over 32768 bytes"):
        cloud.rent(WANT, spec(certificate=Certificate("x" * 40_000, "KEY")))
    assert market.ledger.calls() == []


def test_a_spot_machine_is_rented_for_its_bid(market: VastEmulator, cloud: VastCloud) -> None:
    want = GpuFilter(names=("RTX 4090",), spot=True)
    least = cloud.rent(want, spec()).usd_per_hour
    offer = market.find(LABEL).offer
    assert least == offer["min_bid"]
    assert market.find(LABEL).request["price"] == offer["min_bid"]
    higher = cloud.rent(
        GpuFilter(names=("RTX 4090",), spot=True, bid_usd_per_hour=0.9), spec("gpu-1")
    )
    assert higher.usd_per_hour == market.find(spec("gpu-1").label).request["price"] == 0.9
    with pytest.raises(NoCapacityError, match="Raise bidUsdPerHour"):
        cloud.rent(GpuFilter(spot=True, bid_usd_per_hour=0.001), spec("gpu-2"))


def test_only_offers_that_can_be_reached_and_hold_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offers = [
        make_offer(1, dph_base=0.1, direct_port_count=0),
        make_offer(2, dph_base=0.1, disk_space=20.0),
        make_offer(3, dph_base=0.1, rentable=False),
        make_offer(4, dph_base=0.1, num_gpus=2),
        make_offer(5, dph_base=0.4),
        make_offer(6, dph_base=0.3, machine_id=50_005),
    ]
    with VastEmulator(clock=Clock(FAST), offers=offers) as market:
        for name, value in market.environment().items():
            monkeypatch.setenv(name, value)
        cloud = VastCloud()
        assert [offer.id for offer in cloud.offers(GpuFilter())] == ["6"], "one of each machine"
        disk = cloud.offers(GpuFilter(disk_gb=200))[0]
        assert disk.usd_per_hour == pytest.approx(0.3 + 0.15 * 200 / 730, abs=1e-4)
        with pytest.raises(NoCapacityError) as caught:
            cloud.offers(GpuFilter(names=("RTX 3090",), max_usd_per_hour=0.2))
        assert "none of 4 offers" in str(caught.value)
        assert "names excludes 4" in str(caught.value)
        assert "directPort excludes 1" in str(caught.value)


def test_a_dud_s_host_is_avoided(market: VastEmulator, cloud: VastCloud) -> None:
    first = cloud.rent(WANT, spec())
    second = cloud.rent(WANT, spec(), frozenset({first.host}))
    assert second.host != first.host
    assert [one.id for one in market.ledger.alive(PREFIX)] == [second.id]


def test_a_fleet_is_listed_to_the_last_page_and_told_from_others(
    market: VastEmulator, cloud: VastCloud
) -> None:
    market.offers |= {row["id"]: row for row in map(make_offer, range(1, 61))}
    slots = [spec(f"gpu-{i}") for i in range(30)]
    for i in range(25):
        market.rent_by_hand(f"stemfleet.dev-{i}")
    with ThreadPoolExecutor(4) as threads:
        rented = list(threads.map(lambda one: cloud.rent(GpuFilter(), one), slots))
    assert len({machine.host for machine in rented}) == 30
    listed = another_process().machines(PREFIX)
    assert {one.id for one in listed} == {one.id for one in rented}
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda one: cloud.destroy(one.label), slots))
    assert market.ledger.alive(PREFIX) == []
    assert len(market.ledger.alive("stemfleet.dev-")) == 25
    assert market.ledger.most_alive(PREFIX) == 30


def test_threads_keep_the_least_time_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads of a busy machine do not run on time.
    monkeypatch.setattr("tests.clouds.vast.JITTER_SECONDS", 0.1)
    with VastEmulator(clock=Clock(10.0)) as market:
        for name, value in market.environment().items():
            monkeypatch.setenv(name, value)
        cloud = VastCloud()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda i: cloud.rent(GpuFilter(), spec(f"gpu-{i}")), range(6)))
        assert {call.status for call in market.ledger.calls()} == {200}
        assert len(market.ledger.calls("rent")) == 6
        assert len(market.ledger.calls("search")) == 1, "the market is asked once for all"


def secrets_in(told: str, market: VastEmulator) -> list[str]:
    """Which of the secrets a text holds."""
    return [secret for secret in (market.key, TOKEN) if secret in told]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Everything that is logged, at any level, by any library."""
    caplog.set_level(logging.DEBUG)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("vastai").addHandler(handler)
    yield lambda: caplog.text + stream.getvalue()
    logging.getLogger("vastai").removeHandler(handler)


@pytest.mark.parametrize("name", OVERCOME)
def test_a_fault_that_is_overcome(
    market: VastEmulator,
    cloud: VastCloud,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[], str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    if "slow" in name:
        monkeypatch.setattr(cloud._api._sdk.client, "timeout", SLOW_SECONDS / 2)
    OVERCOME[name](market)
    machine = cloud.rent(WANT, spec())
    assert [one.id for one in market.ledger.alive(PREFIX)] == [machine.id]
    market.clock.advance(20)  # by then it is listed
    assert another_process().rent(WANT, spec()).id == machine.id
    cloud.destroy(LABEL)
    assert market.ledger.alive(PREFIX) == []
    assert market.faults.fired, "the fault was met"
    hosts = [contract.host for contract in market.ledger.contracts(PREFIX)]
    assert len(hosts) == len(set(hosts)), "no machine is tried twice"
    if "bid" not in name and "late" not in name and "blind" not in name:
        assert len(hosts) == 1
    out, err = capfd.readouterr()
    assert secrets_in(told() + out + err, market) == []
    for contract in market.ledger.contracts():
        assert market.key not in str(contract.environment)


DENIED: dict[str, tuple[Arm, type[CloudError]]] = {
    "nothing but gone offers": (
        arms("rent", refusal("invalid_args", "error 404/3603: no_such_ask", 400), 99),
        NoCapacityError,
    ),
    "patience for more than a minute": (
        arms("list", Fault(429, "slow down", {"Retry-After": "61"})),
        RateLimitedError,
    ),
    "patience without end": (
        arms("rent", Fault(429, "API requests too frequent: endpoint threshold=4.5"), 99),
        RateLimitedError,
    ),
    "searches of the day used up": (
        arms("search", refusal("search_quota_exceeded", "no more today", 429)),
        RateLimitedError,
    ),
    "no answer to any search": (arms("search", Fault(502, HTML), 99), UnreachableError),
    "no answer to any list": (arms("list", Fault(503, ""), 99), UnreachableError),
    "no answer to any rental": (arms("rent", Fault(502, HTML), 99), UnreachableError),
    "rented without an answer, and no list": (
        both(arms("rent", Fault(502, HTML, lands=True)), arms("list", Fault(503, ""), 99, skip=1)),
        UnreachableError,
    ),
    "error with 200 at rental": (arms("rent", refusal("no", "not for you")), RefusedError),
    "error with 200 at search": (arms("search", refusal("no", "it broke"), 99), UnreachableError),
    "error with 200 at list": (arms("list", refusal("no", "it broke")), UnreachableError),
    "list retired, 410": (arms("list", GONE_V0), UnreachableError),
    "list retired, 200": (
        arms("list", refusal("deprecated_endpoint", "gone", 200)),
        UnreachableError,
    ),
    "no credit": (lambda cloud: setattr(cloud, "credit", 0.0), NoCreditError),
    "spending limit": (
        arms("rent", refusal("spend_rate_limit", "new accounts spend less", 400)),
        NoCreditError,
    ),
    "402": (arms("rent", Fault(402, "")), NoCreditError),
    "bad key, 401": (arms("list", AUTH_401), BadKeyError),
    "bad key, 404": (arms("rent", AUTH_404), BadKeyError),
}
"""A machine is not to be had, and the error says why."""


@pytest.mark.parametrize("name", DENIED)
def test_a_fault_that_is_told(
    market: VastEmulator, cloud: VastCloud, name: str, told: Callable[[], str]
) -> None:
    arm, kind = DENIED[name]
    credit = market.credit
    arm(market)
    with pytest.raises(CloudError) as caught:
        cloud.rent(WANT, spec())
    assert type(caught.value) is kind
    assert caught.value.__cause__ is None
    text = str(caught.value)
    assert any(word in text for word in ("again", "add credit", "make another", "Change")), text
    assert secrets_in(text + told(), market) == []

    market.faults.disarm()
    market.credit = credit
    left = market.ledger.alive(PREFIX)
    assert len(left) == (1 if "without an answer" in name else 0)
    machine = another_process().rent(WANT, spec())
    assert [one.id for one in market.ledger.alive(PREFIX)] == [machine.id]
    assert not left or left[0].id == machine.id, "the next try adopts it"
    cloud.destroy(LABEL)
    assert market.ledger.alive(PREFIX) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(503, ""),
        Fault(200, HTML),
        refusal("deprecated_endpoint", "gone"),
        GONE_V0,
        Fault(200, {"success": True}),
        Fault(200, {"success": True, "instances": None}),
        Fault(200, {"success": True, "instances": "none"}),
        Fault(200, {"success": True, "instances": [{"label": "no id"}]}),
        Fault(200, reset=True),
    ],
    ids=lambda fault: f"{fault.status} {str(fault.body)[:40]}{' reset' if fault.reset else ''}",
)
def test_a_list_that_failed_is_no_empty_list(
    market: VastEmulator, cloud: VastCloud, fault: Fault
) -> None:
    for i in range(27):
        market.rent_by_hand(f"{PREFIX}x-{i}")
    market.clock.advance(60)
    for skip in (0, 1):
        market.faults.arm("list", fault, count=99, skip=skip)
        with pytest.raises(UnreachableError):
            cloud.machines(PREFIX)
        with pytest.raises(UnreachableError):
            cloud.machines(PREFIX)
        market.faults.disarm()
    market.faults.arm("list", fault, count=99)
    with pytest.raises(UnreachableError):
        cloud.destroy(f"{PREFIX}x-0")
    market.faults.disarm()
    assert len(cloud.machines(PREFIX)) == 27


def test_one_list_that_shows_nothing_is_not_believed(
    market: VastEmulator, cloud: VastCloud
) -> None:
    machine = cloud.rent(WANT, spec())
    market.clock.advance(60)
    market.faults.arm("list", BLIND)
    assert [one.id for one in another_process().machines(PREFIX)] == [machine.id]
    market.faults.arm("list", BLIND)
    another_process().destroy(LABEL)
    assert market.ledger.alive(PREFIX) == []


BECOMES: dict[str, tuple[MachineState, str]] = {
    "stuck-null": (MachineState.STARTING, "being prepared"),
    "stuck-created": (MachineState.STARTING, "created"),
    "stuck-loading": (MachineState.STARTING, "Pulling image"),
    "oci-error": (MachineState.FAILED, "OCI runtime create failed"),
    "pull-error": (MachineState.FAILED, "pull access denied"),
    "ports-null": (MachineState.STARTING, "port 8185 is not mapped"),
    "ports-wrong": (MachineState.STARTING, "port 8185 is not mapped"),
    "ip-null": (MachineState.STARTING, "port 8185 is not mapped"),
    "ip-spaces": (MachineState.RUNNING, "running"),
    "offline": (MachineState.STARTING, "host does not answer; offline"),
    "unknown-then-back": (MachineState.RUNNING, "running"),
    "outbid-a": (MachineState.FAILED, "stopped"),
    "outbid-b": (MachineState.FAILED, "stopped"),
    "exits": (MachineState.FAILED, "exited (1)"),
    "unhealthy": (MachineState.RUNNING, "running"),
}


@pytest.mark.parametrize("fate", BECOMES)
def test_what_becomes_of_a_machine(market: VastEmulator, cloud: VastCloud, fate: str) -> None:
    market.faults.arm_fate(fate)
    cloud.rent(WANT, spec())
    market.clock.advance(40)
    cloud.machines(PREFIX)  # its container starts
    market.clock.advance(600)
    state, detail = BECOMES[fate]
    machine = when(cloud, state, detail)
    assert (machine.url is not None) == (state is MachineState.RUNNING)
    if machine.url:
        assert machine.url.startswith("http://127.0.0.1:")
    cloud.destroy(LABEL)
    assert market.ledger.alive(PREFIX) == []


@pytest.mark.parametrize("shape", ["a", "b"])
def test_one_that_was_outbid_is_ended_before_another_is_rented(
    market: VastEmulator, cloud: VastCloud, shape: str
) -> None:
    first = cloud.rent(GpuFilter(spot=True), spec())
    when(cloud, MachineState.RUNNING)
    market.preempt(LABEL, shape)
    assert "outbid" in when(cloud, MachineState.FAILED).detail
    second = cloud.rent(GpuFilter(spot=True), spec())
    assert second.id != first.id
    assert [one.id for one in market.ledger.alive(PREFIX)] == [second.id]
    assert market.ledger.most_alive(PREFIX) == 1


def test_a_machine_that_never_was_does_not_stay_in_sight(
    market: VastEmulator, cloud: VastCloud
) -> None:
    market.faults.arm_fate("phantom")
    machine = cloud.rent(WANT, spec())
    assert [one.id for one in cloud.machines(PREFIX)] in ([machine.id], [])
    market.clock.advance(60)
    assert eventually(lambda: cloud.machines(PREFIX) == [])
    cloud.destroy(LABEL)
    assert market.ledger.alive(PREFIX) == []


def test_a_machine_that_was_just_rented_is_in_sight_before_it_is_listed(
    market: VastEmulator, cloud: VastCloud
) -> None:
    market.faults.arm_fate("lag")
    machine = cloud.rent(WANT, spec())
    end = market.clock.now() + 40
    while market.clock.now() < end:
        assert [one.id for one in cloud.machines(PREFIX)] == [machine.id]
    cloud.destroy(LABEL)
    assert market.ledger.alive(PREFIX) == []


def test_what_comes_to_light_long_after_its_answer_was_lost_is_ended(
    market: VastEmulator, cloud: VastCloud
) -> None:
    market.limits = False
    market.clock.rate = 0.0  # the lag outlasts any patience
    market.faults.arm("rent", Fault(502, HTML, lands=True))
    market.faults.arm_fate("long-lag")
    machine = cloud.rent(WANT, spec())
    assert len(market.ledger.alive(PREFIX)) == 2
    market.clock.advance(100)
    eventually(lambda: [one.id for one in cloud.machines(PREFIX)] == [machine.id])
    eventually(lambda: cloud.machines(PREFIX) and len(market.ledger.alive(PREFIX)) == 1)
    assert [one.id for one in market.ledger.alive(PREFIX)] == [machine.id]


def test_more_than_one_under_a_label_become_one(market: VastEmulator, cloud: VastCloud) -> None:
    kept = market.rent_by_hand(LABEL)
    for _ in range(2):
        market.rent_by_hand(LABEL)
    market.clock.advance(5)
    assert cloud.rent(WANT, spec()).id == str(kept.id)
    assert [one.id for one in market.ledger.alive(PREFIX)] == [str(kept.id)]


def test_what_cannot_be_destroyed_is_told_and_not_forgotten(
    market: VastEmulator, cloud: VastCloud
) -> None:
    machine = cloud.rent(WANT, spec())
    market.faults.arm("destroy", Fault(500, ""), count=10_000)
    with pytest.raises(CloudError, match=f"machine {machine.id} is still there"):
        cloud.destroy(LABEL)
    market.faults.disarm()
    cloud.destroy(LABEL)
    assert market.ledger.alive(PREFIX) == []


def test_a_key_is_needed_and_either_name_will_do(
    market: VastEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAST_API_KEY")
    with pytest.raises(BadKeyError, match="export VAST_API_KEY"):
        VastCloud()
    monkeypatch.setenv("VASTAI_API_KEY", market.key)
    assert VastCloud().balance() == pytest.approx(market.credit, abs=0.1)
    monkeypatch.setenv("VASTAI_API_KEY", "another-account")
    with pytest.raises(BadKeyError) as caught:
        VastCloud().balance()
    assert "another-account" not in str(caught.value)


def test_an_error_does_not_quote_secrets_that_the_cloud_sends_back(
    market: VastEmulator, cloud: VastCloud
) -> None:
    said = f"env {{'STEMSERVE_TOKEN': '{TOKEN}'}} from {market.key} is not to our taste"
    market.faults.arm("rent", refusal("invalid_args", said, 400))
    with pytest.raises(RefusedError, match="not to our taste") as caught:
        cloud.rent(WANT, spec())
    assert secrets_in(str(caught.value), market) == []


def test_a_call_takes_no_longer_than_it_may(market: VastEmulator) -> None:
    assert VastCloud()._api._sdk.client.timeout == vast_api.TIMEOUT_SECONDS
    assert VastCloud()._api._sdk.client.retry == 1


def test_a_worker_that_nobody_needs_ends_its_own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with VastEmulator(clock=Clock(FAST), start=RealWorker) as market:
        for name, value in market.environment().items():
            monkeypatch.setenv(name, value)
        cloud = VastCloud()
        cloud.rent(WANT, spec(idle_minutes=0.02))
        contract = market.ledger.contracts(PREFIX)[0]
        eventually(lambda: cloud.machines(PREFIX) == [] or None, deadline_s=60)
        assert (contract.alive, contract.ended_by) == (False, "its own key")
        assert market.ledger.alive(PREFIX) == []
