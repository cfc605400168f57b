"""Waiting for a fleet: duds are replaced, the others left alone, and every wait ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from stemfleet import watch
from stemfleet.clouds.base import GpuFilter, Machine, MachineState, UnreachableError, WorkerSpec
from stemfleet.clouds.local import LocalCloud
from stemfleet.duds import remembered
from stemfleet.errors import FleetError
from stemfleet.identity import make_certificate
from stemfleet.watch import STARTS, Proven, Wanted, Watch

TOKEN = "the-stacks-token"
PREFIX = "stemfleet.dev."


class Fleet:
    """Slots on a cloud, and what a watch of them has said."""

    def __init__(
        self,
        cloud: LocalCloud,
        count: int = 2,
        preset: str = "center",
        idle_minutes: float | None = None,
        min_realtime: float = 0.0,
    ) -> None:
        self.cloud = cloud
        self.said: list[str] = []
        self.wanted = [
            Wanted(
                f"dev-{i}",
                cloud,
                GpuFilter(),
                WorkerSpec(
                    f"{PREFIX}dev-{i}.0a1b2c3d4e5f60", preset, TOKEN, idle_minutes=idle_minutes
                ),
                min_realtime,
            )
            for i in range(count)
        ]
        self.rented = [cloud.rent(one.want, one.spec) for one in self.wanted]

    def watch(self, timeout: float = 30, known: dict[str, float] | None = None) -> list[Proven]:
        """Wait for them."""
        return Watch(PREFIX, self.wanted, timeout, known or {}, self.said.append).run()

    def failure(self, timeout: float = 30) -> str:
        """What the user is told when the wait fails."""
        with pytest.raises(FleetError) as caught:
            self.watch(timeout)
        return str(caught.value)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Only the first worker that starts goes wrong."""
    path = tmp_path / "went wrong"
    monkeypatch.setenv("STEMSERVE_FAULT_ONCE", str(path))
    return path


def probes(machine: Machine, what: str = "probes") -> list[str]:
    """The jobs that a stand-in was given; or ``kept``, how it was told to go on."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    status = httpx.get(f"{machine.url}/status", headers=headers, trust_env=False).json()
    return list(status[what])


def test_every_worker_is_given_a_song_and_told_apart(cloud: LocalCloud) -> None:
    fleet = Fleet(cloud)
    proven = fleet.watch()
    assert [one.slot for one in proven] == ["dev-0", "dev-1"]
    assert [one.machine for one in proven] == fleet.rented
    assert [one.realtime for one in proven] == [6, 6]  # 3 s of music in the half second it says
    assert [len(probes(one.machine)) for one in proven] == [1, 1]
    assert [line for line in fleet.said if line.startswith("dev-0 is ready")]


def test_a_worker_that_has_proven_itself_is_not_disturbed(cloud: LocalCloud) -> None:
    fleet = Fleet(cloud, min_realtime=3)
    old, new = fleet.rented
    proven = fleet.watch(known={old.id: 3.5})
    assert proven[0].realtime == 3.5
    assert probes(old) == []
    assert len(probes(new)) == 1


@pytest.mark.parametrize("idle_minutes", [15.0, None])
def test_who_waits_for_another_is_told_that_work_will_come(
    cloud: LocalCloud,
    monkeypatch: pytest.MonkeyPatch,
    once: Path,
    idle_minutes: float | None,
) -> None:
    monkeypatch.setattr(watch, "KEEP_SECONDS", 0.1)
    monkeypatch.setenv("STEMSERVE_FAULT", "never-ready")
    fleet = Fleet(cloud, idle_minutes=idle_minutes)
    proven = fleet.watch(timeout=12)
    (waited,) = [one for one in proven if one.machine in fleet.rented]
    kept = probes(waited.machine, "kept")
    if idle_minutes is None:
        assert kept == []
    else:
        assert set(kept) == {"/lease?expect_work=true"}
        assert len(kept) > 1


@pytest.mark.parametrize("fault", ["dies-in-boot", "dies-in-job", "fails-job", "short-result"])
def test_a_dud_is_replaced_and_no_other(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, once: Path, fault: str
) -> None:
    monkeypatch.setenv("STEMSERVE_FAULT", fault)
    fleet = Fleet(cloud)
    proven = fleet.watch()
    assert once.exists()
    kept = [one for one, was in zip(proven, fleet.rented, strict=True) if one.machine == was]
    assert len(kept) == 1
    assert [line for line in fleet.said if "is replaced" in line]
    assert set(cloud.machines(PREFIX)) == {one.machine for one in proven}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("dies-in-boot", "no room for the weights"),
        ("fails-job", "out of memory"),
        ("short-result", "66150 frames"),
    ],
)
def test_a_slot_that_only_gets_duds_is_given_up_with_its_reason(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setenv("STEMSERVE_FAULT", fault)
    fleet = Fleet(cloud, 1)
    told = fleet.failure()
    assert "slot dev-0" in told
    assert reason in told
    assert "pulumi up" in told
    assert TOKEN not in told
    assert len([line for line in fleet.said if "is replaced" in line]) == STARTS - 1
    log = told.partition("log: ")[2].partition(f" ({STARTS} workers")[0]
    assert Path(log).is_file()


class Hosts(LocalCloud):
    """This machine, as if each worker had another physical machine to itself."""

    name = "vast"

    def __init__(self) -> None:
        super().__init__()
        self.avoided: list[frozenset[str]] = []

    def machines(self, label_prefix: str) -> list[Machine]:
        """Each on a host that is named like the worker."""
        return [replace(one, host=f"host of {one.id}") for one in super().machines(label_prefix)]

    def rent(
        self, want: GpuFilter, spec: WorkerSpec, avoid: frozenset[str] = frozenset()
    ) -> Machine:
        """As ever; notes what was to be avoided."""
        self.avoided.append(avoid)
        machine = super().rent(want, spec, avoid)
        return replace(machine, host=f"host of {machine.id}")


def test_a_worker_that_is_too_slow_is_a_dud_and_its_machine_avoided_for_a_day(
    cloud: LocalCloud,
) -> None:
    del cloud
    hosts = Hosts()
    fleet = Fleet(hosts, 1, min_realtime=7)
    told = fleet.failure()
    assert "it separates at 6 × realtime, the group asks for 7" in told
    first, second = hosts.avoided[-2:]
    assert first == {f"host of {fleet.rented[0].id}"}
    assert first < second
    assert second < remembered("vast"), "the last one as well"


def test_no_wait_is_longer_than_asked(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSERVE_FAULT", "never-ready")
    fleet = Fleet(cloud, 1)
    told = fleet.failure(timeout=6)
    assert "not ready after 6 s" in told
    assert "no weights" in told
    assert cloud.machines(PREFIX) != fleet.rented, "half of the time belongs to another worker"


def test_a_preset_that_no_worker_has_replaces_none(cloud: LocalCloud) -> None:
    fleet = Fleet(cloud, preset="other")
    told = fleet.failure()
    assert "'other' cannot be served: torch" in told
    assert "dev-0" in told
    assert "dev-1" in told
    assert cloud.machines(PREFIX) == fleet.rented


def test_a_worker_with_another_token_is_not_ours(cloud: LocalCloud) -> None:
    fleet = Fleet(cloud, 1)
    (wanted,) = fleet.wanted
    spec = WorkerSpec(wanted.spec.label, "center", "another")
    fleet.wanted = [Wanted("dev-0", cloud, GpuFilter(), spec)]
    (proven,) = fleet.watch()
    assert proven.machine != fleet.rented[0]


def test_a_machine_that_is_gone_is_rented_again(cloud: LocalCloud) -> None:
    fleet = Fleet(cloud)
    cloud.destroy(fleet.wanted[0].spec.label)
    proven = fleet.watch()
    assert proven[0].machine.id != fleet.rented[0].id
    assert proven[1].machine == fleet.rented[1]


class Unanswering(LocalCloud):
    """A cloud whose list fails at first. Ending or renting anything on that ground is a fault."""

    failing = 3

    def machines(self, label_prefix: str) -> list[Machine]:
        """The list, if it can be had."""
        if Unanswering.failing > 0:
            Unanswering.failing -= 1
            raise UnreachableError("the cloud answers 503; try again")
        return super().machines(label_prefix)

    def destroy(self, label: str) -> None:
        """Never here."""
        raise AssertionError(f"{label} was ended though nothing was known of it")


def test_no_token_goes_over_plain_http_where_a_certificate_was_given(cloud: LocalCloud) -> None:
    fleet = Fleet(cloud, 1)
    (wanted,) = fleet.wanted
    spec = replace(wanted.spec, certificate=make_certificate())
    fleet.wanted = [replace(wanted, spec=spec)]
    told = fleet.failure(timeout=1)
    assert "is not HTTPS" in told


def test_a_list_that_failed_replaces_nothing(cloud: LocalCloud) -> None:
    fleet = Fleet(cloud)
    flaky = Unanswering(cloud.root)
    fleet.wanted = [Wanted(one.slot, flaky, one.want, one.spec) for one in fleet.wanted]
    proven = fleet.watch()
    assert Unanswering.failing == 0
    assert [one.machine for one in proven] == fleet.rented
    assert all(m.state is MachineState.RUNNING for m in cloud.machines(PREFIX))
    assert [line for line in fleet.said if "503" in line]
