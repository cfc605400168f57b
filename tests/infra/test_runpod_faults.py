"""RunPod when things go wrong: no fault leaves a pod that nobody knows, or ends one too many."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from stemfleet.clouds import runpod as runpod_module
from stemfleet.clouds import runpod_account, runpod_api
from stemfleet.clouds.base import (
    BadKeyError,
    CloudError,
    GpuFilter,
    MachineState,
    NoCapacityError,
    NoCreditError,
    RateLimitedError,
    RefusedError,
    UnreachableError,
)
from stemfleet.clouds.runpod import RunpodCloud

from tests.clouds.faults import Fault, Request
from tests.clouds.runpod import EXITED, NO_INSTANCES, RunpodEmulator
from tests.infra.runpods import ANY, FOREIGN, LABEL, PREFIX, TOKEN, alive, put, spec
from tests.service.worker import eventually

HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
PASSING = {
    "429 with a pause": Fault(429, {"title": "Too Many Requests"}, {"Retry-After": "2"}),
    "429 without one": Fault(429, "API requests too frequent"),
    "500": Fault(500, {"title": "Internal Server Error", "status": 500, "detail": "oops"}),
    "502 in HTML": Fault(502, HTML),
    "503": Fault(503, ""),
    "a reset": Fault(reset=True),
}
LOST = {
    "502": Fault(502, HTML, lands=True),
    "500": Fault(500, {"title": "Internal Server Error"}, lands=True),
    "a reset": Fault(reset=True, lands=True),
    "a timeout": Fault(lands=True, delay=1.5),
    "HTML with 200": Fault(200, HTML, lands=True),
    "a broken body": Fault(201, "not gzip", {"Content-Encoding": "gzip"}, lands=True),
    "no id": Fault(201, {"name": LABEL}, lands=True),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what never passes: 15 of the cloud's seconds, half of one of ours."""
    monkeypatch.setattr(runpod_api, "PATIENCE_SECONDS", 15.0)
    monkeypatch.setattr(runpod_account, "DESTROY_SECONDS", 15.0)


def problem(status: int, detail: str) -> Fault:
    """An answer as RunPod refuses."""
    return Fault(status, {"title": "Refused", "status": status, "detail": detail})


def named(fault: dict[str, Fault]) -> list[object]:
    """Parameters with readable ids."""
    return [pytest.param(value, id=key) for key, value in fault.items()]


@pytest.mark.parametrize("endpoint", ["list", "catalog", "create", "delete"])
@pytest.mark.parametrize("fault", named(PASSING))
def test_what_passes_is_waited_for(runpod: RunpodEmulator, endpoint: str, fault: Fault) -> None:
    runpod.faults.arm(endpoint, fault, count=2)
    cloud = RunpodCloud()
    machine = cloud.rent(ANY, spec())
    assert [one.id for one in alive(runpod)] == [machine.id]
    cloud.destroy(LABEL)
    assert alive(runpod) == []
    assert len(runpod.ledger.contracts()) == 1
    assert len(runpod.faults.fired) == 2


@pytest.mark.parametrize("lag", [0.0, 3.0])
@pytest.mark.parametrize("fault", named(LOST))
def test_a_pod_whose_answer_was_lost_is_found(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch, fault: Fault, lag: float
) -> None:
    monkeypatch.setattr(runpod_api, "TIMEOUT", httpx.Timeout(1.0))
    runpod.list_lag_s = lag
    runpod.faults.arm("create", fault)
    machine = RunpodCloud().rent(ANY, spec())
    assert [one.id for one in runpod.ledger.contracts()] == [machine.id]
    assert len(runpod.faults.fired) == 1
    RunpodCloud().destroy(LABEL)
    assert alive(runpod) == []


@pytest.mark.parametrize(
    "fault",
    [
        LOST["502"],
        LOST["a reset"],
        Fault(200, HTML, lands=True),
        Fault(200, {"errors": {}, "data": None}, lands=True),
        Fault(200, {"errors": ["oops"], "data": None}, lands=True),
        Fault(200, {"errors": [{"message": "x"}], "data": {"pod": {}, "x": 1}}, lands=True),
    ],
)
def test_a_spot_pod_whose_answer_was_lost_is_found(runpod: RunpodEmulator, fault: Fault) -> None:
    runpod.faults.arm("graphql:podRentInterruptable", fault)
    machine = RunpodCloud().rent(GpuFilter(spot=True), spec())
    assert [one.id for one in runpod.ledger.contracts()] == [machine.id]


@pytest.mark.parametrize("same_process", [True, False])
def test_a_pod_that_appears_after_it_was_given_up_is_ended_by_the_next_who_looks(
    runpod: RunpodEmulator, forget: Callable[[], None], same_process: bool
) -> None:
    runpod.faults.arm("create", LOST["502"])
    runpod.list_lag_s = 600.0
    RunpodCloud().rent(ANY, spec())
    assert len(alive(runpod)) == 2, "the first could not be seen"
    runpod.clock.advance(600)
    if same_process:
        (kept,) = RunpodCloud().machines(PREFIX)
    else:
        forget()
        kept = RunpodCloud().rent(ANY, spec())
    assert [one.id for one in alive(runpod)] == [kept.id]


@pytest.mark.usefixtures("slowly")
def test_a_kind_that_was_gone_is_asked_for_last(runpod: RunpodEmulator) -> None:
    community: Callable[[Request], bool] = lambda asked: asked.body["cloud"] == "COMMUNITY"  # noqa: E731
    runpod.faults.arm("create", problem(400, NO_INSTANCES), count=1000, when=community)
    for i in range(10):
        RunpodCloud().rent(ANY, spec(f"{PREFIX}pods-{i}.0a1b2c3d4e5f60"))
    assert len(runpod.ledger.calls("create")) == 10 + 2


def test_a_surplus_pod_that_does_not_end_is_no_reason_to_fail(runpod: RunpodEmulator) -> None:
    first, second = put(runpod, LABEL), put(runpod, LABEL)
    runpod.faults.arm("delete", problem(409, "it is locked"), count=3)
    assert RunpodCloud().rent(ANY, spec()).id == first
    assert {one.id for one in alive(runpod)} == {first, second}
    runpod.faults.disarm()
    RunpodCloud().destroy(LABEL)
    assert alive(runpod) == []


def test_a_pod_that_was_promised_and_never_came_is_missed(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runpod_account, "LAG_SECONDS", 1e6)
    runpod.faults.arm("create", Fault(201, {"id": "ghost", "name": LABEL, "status": "STARTING"}))
    cloud = RunpodCloud()
    assert cloud.rent(ANY, spec()).id == "ghost"
    assert [one.id for one in cloud.machines(PREFIX)] == ["ghost"]
    monkeypatch.setattr(runpod_account, "LAG_SECONDS", 0.0)
    monkeypatch.setattr(runpod_module, "SHARED_SECONDS", 0.0)
    assert cloud.machines(PREFIX) == []
    assert cloud.rent(ANY, spec()).id != "ghost"
    cloud.destroy(LABEL)
    assert runpod.ledger.alive() == []


@pytest.mark.parametrize("status", [200, 410, 500])
def test_a_machines_host_is_told_or_not_and_nothing_depends_on_it(
    runpod: RunpodEmulator, status: int
) -> None:
    runpod.faults.arm("graphql:pods", Fault(status, {"data": {"myself": None}}), count=1000)
    cloud = RunpodCloud()
    cloud.rent(ANY, spec(), frozenset({"some machine"}))
    runpod.clock.advance(60)
    (machine,) = cloud.machines(PREFIX)
    assert (machine.host, machine.state) == ("", MachineState.RUNNING)


@pytest.mark.parametrize(
    "body", [{"gpus": None}, {"gpus": [{"id": "NVIDIA L4"}]}, {"gpus": ["NVIDIA L4"]}, HTML]
)
def test_a_catalog_that_is_not_understood_is_told(
    runpod: RunpodEmulator, body: str | dict[str, object]
) -> None:
    runpod.faults.arm("catalog", Fault(200, body), count=1000)
    for call in (lambda: RunpodCloud().offers(ANY), lambda: RunpodCloud().rent(ANY, spec())):
        with pytest.raises(UnreachableError, match="try again"):
            call()
    assert runpod.ledger.calls("create") == []


@pytest.mark.usefixtures("impatient")
def test_when_nobody_can_say_whether_a_pod_exists_the_slot_stands_in_state(
    runpod: RunpodEmulator,
) -> None:
    runpod.faults.arm("create", LOST["502"])
    runpod.faults.arm("list", Fault(503, ""), skip=1, count=1000)
    machine = RunpodCloud().rent(ANY, spec())
    assert machine.label == LABEL
    assert machine.state is MachineState.STARTING
    assert machine.usd_per_hour > 0
    assert "no answer" in machine.detail or "502" in machine.detail
    assert len(alive(runpod)) == 1
    runpod.faults.disarm()
    assert [one.label for one in RunpodCloud().machines(PREFIX)] == [LABEL]
    RunpodCloud().destroy(LABEL)
    assert alive(runpod) == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(500, ""), id="500"),
        pytest.param(Fault(502, HTML), id="502"),
        pytest.param(Fault(200, HTML), id="HTML with 200"),
        pytest.param(Fault(200, {"instances": []}), id="another object"),
        pytest.param(Fault(200, {"pods": None}), id="no list"),
        pytest.param(Fault(200, {"pods": [{"name": LABEL}]}), id="a row without an id"),
        pytest.param(Fault(reset=True), id="a reset"),
        pytest.param(Fault(200, {"pods": [], "pagination": {"hasNextPage": True}}), id="no cursor"),
        pytest.param(
            Fault(200, {"pods": [], "pagination": {"hasNextPage": True, "nextCursor": "x"}}),
            id="no end",
        ),
        pytest.param(Fault(302, "", {"Location": "http://127.0.0.1:1/"}), id="another place"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_list_that_failed_is_no_empty_list(runpod: RunpodEmulator, fault: Fault) -> None:
    cloud = RunpodCloud()
    pod = put(runpod, LABEL)
    runpod.faults.arm("list", fault, count=10_000)
    for call in (
        lambda: cloud.machines(PREFIX),
        lambda: cloud.destroy(LABEL),
        lambda: cloud.rent(ANY, spec()),
    ):
        with pytest.raises(UnreachableError, match="try again"):
            call()
    assert [one.id for one in alive(runpod)] == [pod]
    assert runpod.ledger.calls("create") == runpod.ledger.calls("delete") == []


@pytest.mark.usefixtures("impatient")
def test_all_who_wait_for_a_list_share_its_failure(runpod: RunpodEmulator) -> None:
    runpod.faults.arm("list", Fault(503, "", delay=0.2), count=10_000)
    together = threading.Barrier(8)

    def look(_: int) -> None:
        together.wait()
        with pytest.raises(UnreachableError):
            RunpodCloud().machines(PREFIX)

    with pytest.raises(UnreachableError):
        RunpodCloud().machines(PREFIX)
    alone = len(runpod.ledger.calls("list"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
    assert len(runpod.ledger.calls("list")) < alone * 5


@pytest.mark.usefixtures("impatient")
def test_a_later_page_that_fails_is_no_end_of_the_list(runpod: RunpodEmulator) -> None:
    runpod.page_size = 2
    for i in range(5):
        put(runpod, f"{PREFIX}pods-{i}.0a1b2c3d4e5f60")
    second: Callable[[Request], bool] = lambda request: "cursor" in request.query  # noqa: E731
    runpod.faults.arm("list", Fault(500, ""), count=1000, when=second)
    with pytest.raises(UnreachableError):
        RunpodCloud().machines(PREFIX)
    with pytest.raises(UnreachableError):
        RunpodCloud().destroy(LABEL)


REFUSALS: list[tuple[str, Fault, type[CloudError], str]] = [
    ("bad key", problem(401, "missing or invalid credentials"), BadKeyError, "RUNPOD_API_KEY"),
    ("no right", problem(403, "access denied"), CloudError, "permission"),
    ("no credit", problem(402, "Insufficient balance"), NoCreditError, "add credit"),
    ("a rule", problem(400, "exactly one of gpu or cpu must be set"), RefusedError, "exactly one"),
    ("credit by text", problem(400, "Your balance is too low."), NoCreditError, "add credit"),
    ("a conflict", problem(409, "name is taken"), RefusedError, "name is taken"),
    ("too large", problem(413, "Request body exceeds"), RefusedError, "exceeds"),
    ("unknown", problem(422, "Request validation failed."), RefusedError, "validation"),
    ("gone", problem(410, "REST API v1 has been retired."), RefusedError, "retired"),
    ("an hour", Fault(429, "", {"Retry-After": "3000"}), RateLimitedError, "patience"),
]


@pytest.mark.parametrize(
    ("fault", "error", "says"), [pytest.param(*rest, id=name) for name, *rest in REFUSALS]
)
def test_a_refusal_says_what_to_do_and_leaves_nothing(
    runpod: RunpodEmulator, fault: Fault, error: type[CloudError], says: str
) -> None:
    put(runpod, FOREIGN[0])
    runpod.faults.arm("create", fault, count=1000)
    with pytest.raises(error, match=says):
        RunpodCloud().rent(GpuFilter(names=("RTX 3090",), verified=True), spec())
    assert alive(runpod) == []
    assert len(runpod.ledger.calls("create")) <= 2


@pytest.mark.parametrize(
    "refusal",
    [
        problem(400, NO_INSTANCES),
        problem(400, "This machine does not have the resources to deploy your pod"),
        problem(400, "There are no machines with enough disk space"),
        problem(403, "this account has no access to the pool"),
    ],
)
def test_the_next_kind_is_asked_for_when_one_is_gone(
    runpod: RunpodEmulator, refusal: Fault
) -> None:
    runpod.faults.arm("create", refusal, count=2)
    RunpodCloud().rent(ANY, spec())
    assert runpod.named(LABEL).kind.name == "RTX 4090"
    assert runpod.named(LABEL).cloud == "SECURE"
    assert len(runpod.ledger.contracts()) == 1


def test_when_all_are_gone_each_is_named(runpod: RunpodEmulator) -> None:
    runpod.faults.arm("create", problem(400, NO_INSTANCES), count=1000)
    with pytest.raises(NoCapacityError) as caught:
        RunpodCloud().rent(GpuFilter(verified=True), spec())
    for gpu in ("RTX 4090", "RTX 3090", "H100 SXM", "RTX A4000"):
        assert f"{gpu} (secure cloud)" in str(caught.value)


def test_no_credit_stops_pods_and_renting(runpod: RunpodEmulator) -> None:
    cloud = RunpodCloud()
    cloud.rent(ANY, spec())
    runpod.credit = 0.0
    (machine,) = cloud.machines(PREFIX)
    assert machine.state is MachineState.FAILED
    with pytest.raises(NoCreditError, match="add credit"):
        cloud.rent(ANY, spec(f"{PREFIX}pods-1.0a1b2c3d4e5f60"))
    with pytest.raises(NoCreditError):
        cloud.rent(GpuFilter(spot=True), spec(f"{PREFIX}pods-1.0a1b2c3d4e5f60"))
    cloud.destroy(LABEL)
    assert runpod.ledger.alive() == []


@pytest.mark.parametrize("fault", named(PASSING))
def test_a_pod_that_is_listed_with_a_lag_is_not_rented_twice_and_can_be_ended(
    runpod: RunpodEmulator, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(runpod_account, "LAG_SECONDS", 1e6)
    cloud = RunpodCloud()
    runpod.list_lag_s = 1e6
    machine = cloud.rent(ANY, spec())
    assert [one.id for one in cloud.machines(PREFIX)] == [machine.id]
    # When its lists have lacked the pod for long, RunPod is asked for it.
    monkeypatch.setattr(runpod_account, "LAG_SECONDS", 0.0)
    monkeypatch.setattr(runpod_module, "SHARED_SECONDS", 0.0)
    runpod.faults.arm("get", fault, count=2)
    assert cloud.rent(ANY, spec()).id == machine.id
    assert len(runpod.faults.fired) == 2
    cloud.destroy(LABEL)
    assert len(runpod.ledger.contracts()) == 1
    assert runpod.ledger.alive() == []


def test_the_end_of_a_pod_is_waited_for(runpod: RunpodEmulator) -> None:
    runpod.sticky_lists = 4
    cloud = RunpodCloud()
    cloud.rent(ANY, spec())
    cloud.destroy(LABEL)
    assert cloud.machines(PREFIX) == []
    assert len(runpod.ledger.calls("delete")) >= 2


@pytest.mark.usefixtures("impatient")
def test_a_pod_that_does_not_end_is_told(runpod: RunpodEmulator) -> None:
    runpod.faults.arm("delete", Fault(204, ""), count=1000)
    pod = put(runpod, LABEL)
    with pytest.raises(CloudError, match=f"still lists pod {pod}.*console"):
        RunpodCloud().destroy(LABEL)
    assert len(alive(runpod)) == 1


@pytest.mark.parametrize(
    "fault", [Fault(500, ""), Fault(429, ""), Fault(reset=True), problem(409, "it is locked")]
)
@pytest.mark.usefixtures("impatient")
def test_an_end_that_cannot_be_had_is_told(runpod: RunpodEmulator, fault: Fault) -> None:
    runpod.faults.arm("delete", fault, count=1000)
    put(runpod, LABEL)
    with pytest.raises(CloudError):
        RunpodCloud().destroy(LABEL)
    runpod.faults.disarm()
    RunpodCloud().destroy(LABEL)
    assert alive(runpod) == []


@pytest.mark.parametrize("fault", [LOST["502"], LOST["a reset"], LOST["HTML with 200"]])
def test_an_end_whose_answer_was_lost_is_an_end(runpod: RunpodEmulator, fault: Fault) -> None:
    runpod.faults.arm("delete", fault)
    put(runpod, LABEL)
    RunpodCloud().destroy(LABEL)
    assert alive(runpod) == []


@pytest.mark.parametrize("ends", ["vanishes", "exits", "error"])
def test_a_pod_that_ended_by_itself_is_seen_and_rented_again(
    runpod: RunpodEmulator, ends: str
) -> None:
    runpod.faults.arm_fate(ends)
    cloud = RunpodCloud()
    lost = cloud.rent(ANY, spec())
    assert [one.id for one in cloud.machines(PREFIX)] == [lost.id]
    runpod.clock.advance(60)
    assert not [one for one in cloud.machines(PREFIX) if one.state is not MachineState.FAILED]
    runpod.clock.advance(60)
    again = cloud.rent(ANY, spec())
    assert again.id != lost.id
    assert [one.id for one in alive(runpod)] == [again.id]
    assert runpod.ledger.most_alive() == 1


@pytest.mark.parametrize("status", [401, 403, 500, 200])
@pytest.mark.usefixtures("impatient")
def test_a_balance_that_cannot_be_read_is_no_balance(runpod: RunpodEmulator, status: int) -> None:
    runpod.faults.arm("graphql:clientBalance", Fault(status, {"data": None}), count=1000)
    with pytest.raises(CloudError):
        RunpodCloud().balance()


ECHOES = [
    *(("create", status) for status in (400, 401, 402, 403, 404, 409, 422, 429, 500)),
    *(
        (name, s)
        for name in ("list", "delete", "catalog", "graphql:clientBalance")
        for s in (401, 422)
    ),
]


@pytest.mark.parametrize(("endpoint", "status"), ECHOES)
def test_no_error_tells_a_secret(
    runpod: RunpodEmulator, caplog: pytest.LogCaptureFixture, endpoint: str, status: int
) -> None:
    caplog.set_level("DEBUG")
    echo = f"your key {runpod.key}" + (f", your token {TOKEN}" if endpoint == "create" else "")
    body = {"title": echo, "status": status, "detail": echo, "errors": [echo]}
    runpod.faults.arm(endpoint, Fault(status, body, {"Retry-After": "3000"}), count=1000)
    put(runpod, FOREIGN[0])
    cloud = RunpodCloud()
    told = []
    calls: list[Callable[[], object]] = [
        lambda: cloud.machines(PREFIX),
        lambda: cloud.rent(ANY, spec()),
        lambda: cloud.destroy(LABEL),
        cloud.balance,
    ]
    for call in calls:
        try:
            call()
        except CloudError as error:
            told += traceback.format_exception(error)
    assert told
    said = "\n".join(told) + caplog.text
    assert runpod.key not in said
    assert TOKEN not in said


def arm_some(runpod: RunpodEmulator, dice: random.Random) -> None:
    """Up to three faults, at any endpoint; none that lies about what a list holds."""
    for _ in range(dice.randrange(4)):
        endpoint = dice.choice(["list", "create", "delete", "catalog", "get"])
        faults = list(PASSING.values())
        if endpoint == "create":
            faults += [one for one in LOST.values() if not one.delay]
            faults += [problem(400, NO_INSTANCES), problem(403, "no access to the pool")]
        runpod.faults.arm(endpoint, dice.choice(faults), skip=dice.randrange(2))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_in_whatever_order_nothing_is_left(
    runpod: RunpodEmulator, forget: Callable[[], None], seed: int
) -> None:
    """Slots rented and ended under random faults, as by one process after the other."""
    dice = random.Random(seed)
    labels = [f"{PREFIX}pods-{i}.0a1b2c3d4e5f60" for i in range(3)]
    for name in FOREIGN:
        put(runpod, name)
    runpod.page_size = dice.choice([None, 2])
    runpod.list_lag_s = dice.choice([0.0, 2.0])
    runpod.sticky_lists = dice.choice([0, 2])
    for _ in range(8):
        arm_some(runpod, dice)
        label = dice.choice(labels)
        with suppress(CloudError):
            if dice.random() < 0.7:
                RunpodCloud().rent(ANY, spec(label))
            else:
                RunpodCloud().destroy(label)
        if dice.random() < 0.3:
            runpod.clock.advance(10)
            forget()
        if dice.random() < 0.2:
            for pod in [pod for pod in runpod.pods() if pod.name == dice.choice(labels)]:
                runpod.end(pod, EXITED, "runpod")
    runpod.faults.disarm()
    runpod.clock.advance(10)
    forget()
    for label in labels[:2]:
        machine = RunpodCloud().rent(ANY, spec(label))
        assert [one.id for one in alive(runpod, label)] == [machine.id]
    for label in labels:
        RunpodCloud().destroy(label)
    assert sorted(one.label for one in runpod.ledger.alive()) == sorted(FOREIGN)


RENTS = """
import sys
from stemfleet.clouds.base import GpuFilter, WorkerSpec
from stemfleet.clouds.runpod import RunpodCloud
for label in sys.argv[1:]:
    RunpodCloud().rent(GpuFilter(), WorkerSpec(label, "center", "the-stacks-token", "ghcr.io/x"))
"""


@pytest.mark.parametrize("calls", [1, 3, 4, 5, 6])
def test_what_a_killed_process_had_rented_is_adopted_by_the_next(
    runpod: RunpodEmulator, calls: int
) -> None:
    labels = [f"{PREFIX}pods-{i}.0a1b2c3d4e5f60" for i in range(3)]
    runpod.list_lag_s = 1.0
    # Each pod is made at once, and its answer takes a while: that is where the process dies.
    runpod.faults.arm("create", Fault(lands=True, delay=0.2), count=3)
    process = subprocess.Popen([sys.executable, "-c", RENTS, *labels])
    eventually(lambda: len(runpod.ledger.calls()) >= calls or process.poll() is not None)
    process.kill()
    process.wait()
    # What it had asked for last may still be on its way.
    eventually(lambda: len(runpod.faults.fired) == len(runpod.ledger.calls("create")))
    runpod.faults.disarm()
    runpod.clock.advance(2)
    rented = {one.label: one.id for one in runpod.ledger.alive()}
    kept = {label: RunpodCloud().rent(ANY, spec(label)).id for label in labels}
    assert kept == kept | rented
    assert sorted(kept.values()) == sorted(one.id for one in runpod.ledger.alive())
    for label in labels:
        RunpodCloud().destroy(label)
    assert runpod.ledger.alive() == []
