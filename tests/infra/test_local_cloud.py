"""This machine as a cloud: what really runs is what is listed, and only ours is ended."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from stemfleet.clouds import local
from stemfleet.clouds.base import (
    CloudError,
    GpuFilter,
    Machine,
    MachineState,
    UnreachableError,
    WorkerSpec,
)
from stemfleet.clouds.local import LocalCloud
from stemfleet.clouds.processes import is_worker, processes_under

from tests.service.worker import eventually

ANY = GpuFilter()


def spec(slot: str = "dev-0", *, token: str = "a-token") -> WorkerSpec:
    """What shall run in a slot."""
    return WorkerSpec(f"stemfleet.dev.{slot}.0a1b2c3d4e5f60", "center", token)


def worker_of(cloud: LocalCloud, machine: Machine) -> psutil.Process:
    """The worker's process."""
    (processes,) = (
        found for place, found in processes_under(cloud.root).items() if place.name == machine.id
    )
    (worker,) = filter(is_worker, processes)
    return worker


def ended(process: psutil.Process) -> bool:
    """Whether a process has ended, collected by its parent or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ready(machine: Machine, token: str = "a-token") -> bool:
    """Whether the worker behind the machine answers to the token."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{machine.url}/ready", headers=headers, timeout=60, trust_env=False)
    return answer.status_code == httpx.codes.OK


def test_a_rented_worker_serves_and_is_listed(cloud: LocalCloud) -> None:
    machine = cloud.rent(ANY, spec())
    assert ready(machine)
    assert cloud.machines("stemfleet.dev.") == [machine]
    assert cloud.machines("stemfleet.other.") == []


def test_renting_again_finds_the_worker(cloud: LocalCloud) -> None:
    machine = cloud.rent(ANY, spec())
    assert cloud.rent(ANY, spec()) == machine
    assert LocalCloud().rent(ANY, spec()) == machine


def test_many_who_rent_one_slot_at_once_start_one_worker(cloud: LocalCloud) -> None:
    with ThreadPoolExecutor(8) as pool:
        machines = set(pool.map(lambda _: cloud.rent(ANY, spec()), range(8)))
    assert len(machines) == 1
    workers = [p for found in processes_under(cloud.root).values() for p in found if is_worker(p)]
    assert len(workers) == 1


def test_a_worker_outlives_who_started_it(cloud: LocalCloud) -> None:
    program = (
        "import sys; from stemfleet.clouds import local; from stemfleet.clouds.base import *\n"
        "local.COMMAND = tuple(sys.argv[1:])\n"
        f"print(local.LocalCloud().rent(GpuFilter(), {spec()!r}).id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *local.COMMAND], capture_output=True, text=True, check=True
    )
    (machine,) = cloud.machines("stemfleet.dev.")
    assert machine.id == done.stdout.strip()
    assert ready(machine)
    process = worker_of(cloud, machine)
    assert os.getsid(process.pid) == process.pid


def test_a_killed_worker_is_seen_and_replaced_and_no_other(cloud: LocalCloud) -> None:
    killed, other = cloud.rent(ANY, spec("dev-0")), cloud.rent(ANY, spec("dev-1"))
    worker_of(cloud, killed).send_signal(signal.SIGKILL)

    listed = eventually(
        lambda: {m.label: m for m in cloud.machines("stemfleet.dev.")},
        lambda machines: machines[killed.label].state is MachineState.FAILED,
    )
    assert listed[other.label] == other

    again = cloud.rent(ANY, spec("dev-0"))
    assert again.id != killed.id
    assert ready(again)
    assert set(cloud.machines("stemfleet.dev.")) == {again, other}


def test_a_worker_that_ended_tells_its_last_words(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEMSERVE_FAULT", "dies-in-boot")
    cloud.rent(ANY, spec())
    (machine,) = eventually(
        lambda: cloud.machines("stemfleet.dev."), lambda ms: ms[0].state is MachineState.FAILED
    )
    assert "no room for the weights" in machine.detail
    log = Path(machine.detail.partition("log: ")[2])
    assert "no room for the weights" in log.read_text()


@pytest.mark.parametrize("fault", ["", "stubborn"])
def test_destroy_ends_the_worker_and_what_it_started(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("STEMSERVE_FAULT", fault)
    monkeypatch.setattr("stemfleet.clouds.processes.TERM_SECONDS", 0.5)
    monkeypatch.setenv("STEMSERVE_CHILD", "1")
    machine, other = cloud.rent(ANY, spec("dev-0")), cloud.rent(ANY, spec("dev-1"))
    assert ready(machine)
    assert ready(other)
    worker = worker_of(cloud, machine)
    family = [worker, *eventually(worker.children)]

    cloud.destroy(machine.label)
    eventually(lambda: all(ended(process) for process in family))
    assert not (cloud.root / machine.label).exists()
    assert cloud.machines("stemfleet.dev.") == [other]


def test_destroy_ends_what_a_killed_worker_left_running(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEMSERVE_CHILD", "1")
    machine = cloud.rent(ANY, spec())
    assert ready(machine)
    worker = worker_of(cloud, machine)
    (child,) = eventually(worker.children)
    worker.kill()
    eventually(lambda: ended(worker))
    assert not ended(child)

    cloud.destroy(machine.label)
    eventually(lambda: ended(child))


def test_destroying_what_is_not_there_is_done_already(cloud: LocalCloud) -> None:
    cloud.destroy("stemfleet.dev.dev-7.0a1b2c3d4e5f60")
    assert list(cloud.root.iterdir()) == []


def test_only_workers_below_the_root_are_seen_or_ended(cloud: LocalCloud, tmp_path: Path) -> None:
    ours, elsewhere = cloud.rent(ANY, spec()), LocalCloud(tmp_path / "elsewhere")
    try:
        theirs = elsewhere.rent(ANY, spec())
        assert cloud.machines("") == [ours]
        cloud.destroy(ours.label)
        assert cloud.machines("") == []
        assert elsewhere.machines("") == [theirs]
        assert ready(theirs)
    finally:
        elsewhere.destroy(spec().label)


def test_a_list_that_cannot_be_read_is_no_empty_list(root: Path) -> None:
    root.write_text("a file where a directory should be")
    with pytest.raises(UnreachableError, match="cannot be read"):
        LocalCloud().machines("stemfleet.dev.")
    with pytest.raises(CloudError, match="STEMFLEET_LOCAL_DIR"):
        LocalCloud().rent(ANY, spec())


def test_the_same_workers_are_found_from_every_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMFLEET_LOCAL_DIR", "workers")
    with pytest.raises(CloudError, match="/a/path"):
        LocalCloud()


def test_a_worker_whose_directory_was_removed_is_not_taken_for_whole(cloud: LocalCloud) -> None:
    machine = cloud.rent(ANY, spec())
    shutil.rmtree(cloud.root / machine.label)
    (listed,) = cloud.machines("stemfleet.dev.")
    assert listed.state is MachineState.FAILED
    again = cloud.rent(ANY, spec())
    assert cloud.machines("stemfleet.dev.") == [again]
    assert ready(again)


def test_nothing_secret_and_nothing_open_is_handed_down(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("VAST_API_KEY", "RUNPOD_API_KEY", "PULUMI_CONFIG_PASSPHRASE", "AWS_SECRET"):
        monkeypatch.setenv(name, "for-the-driver-alone")
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        machine = cloud.rent(ANY, spec(token="the-stacks-token"))
        assert ready(machine, "the-stacks-token")
        worker = worker_of(cloud, machine)
        assert "for-the-driver-alone" not in worker.environ().values()
        assert "the-stacks-token" not in " ".join(worker.cmdline())
        assert {file.path for file in worker.open_files()} == {
            str(cloud.root / machine.label / machine.id / "worker.log")
        }
    for path in (cloud.root, cloud.root / machine.label, cloud.root / machine.label / machine.id):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    files = [path for path in cloud.root.rglob("*") if path.is_file()]
    assert not [path for path in files if b"the-stacks-token" in path.read_bytes()]


def test_a_worker_needs_its_package(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else find_spec(name)
    )
    with pytest.raises(CloudError, match=r"stemfleet\[service\]"):
        cloud.rent(ANY, spec())
    assert cloud.machines("") == []
