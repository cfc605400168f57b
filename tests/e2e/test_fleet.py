"""A fleet of this machine's workers, from the first preview to the last process."""

from __future__ import annotations

import hashlib
import io
import subprocess
import time
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from stemfleet.clouds.processes import is_worker, processes_under

from tests.e2e.conftest import REPOSITORY, Project
from tests.service.worker import eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

DEV = {"name": "dev", "cloud": "local", "count": 2}
SECOND = 44_100


def separate(endpoint: dict[str, Any], token: str) -> dict[str, Any]:
    """A real job through an endpoint: two seconds of a tone."""
    file = io.BytesIO()
    with wave.open(file, "wb") as song:
        song.setparams((2, 2, SECOND, 0, "NONE", ""))
        song.writeframes(bytes([0, 0, 0, 16]) * 2 * SECOND)
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(
        base_url=endpoint["url"], headers=headers, timeout=60, trust_env=False
    ) as client:
        client.put(f"/inputs/{digest}", content=file.getvalue()).raise_for_status()
        answer = client.post("/job", json={"input_sha256": digest}).raise_for_status()
        job = answer.json()["job_id"]
        return eventually(
            lambda: dict(client.get(f"/job/{job}").raise_for_status().json()),
            lambda seen: seen["status"] in ("completed", "failed"),
        )


def worker_in(project: Project, instance: str) -> psutil.Process:
    """The process of an instance."""
    return next(
        process
        for place, processes in processes_under(project.cloud.root).items()
        for process in processes
        if place.name == instance and is_worker(process)
    )


def command_lines() -> list[str]:
    """What every user of the machine can see of every process."""
    lines = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return lines


def read_all(folder: Path) -> bytes:
    """Every byte that lies in a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_fleet_lives_and_ends(project: Project) -> None:
    committed = (REPOSITORY / "Pulumi.dev.yaml").read_bytes()
    said = project.pulumi("preview")
    assert "7 to create" in said
    assert project.running() == [], "a preview starts nothing"

    said += project.up()
    assert (project.folder / "Pulumi.dev.yaml").read_bytes() == committed
    outputs = project.outputs()
    token, endpoints = outputs["token"], outputs["endpoints"]
    assert [one["slot"] for one in endpoints] == ["dev-0", "dev-1"]
    assert sorted(one["instanceId"] for one in endpoints) == project.running()
    assert all(one["realtime"] > 0 for one in endpoints)
    assert outputs["usdPerHour"] == 0
    job = separate(endpoints[1], token)
    assert job["status"] == "completed"
    assert job["duration_seconds"] == 2
    refused = httpx.get(f"{endpoints[0]['url']}/status", trust_env=False)
    assert refused.status_code == httpx.codes.UNAUTHORIZED

    said += project.pulumi("preview", "--expect-no-changes", "--refresh")

    before = project.instances()
    worker_in(project, before["dev-0"]).kill()
    said += project.up("--refresh")
    after = project.instances()
    assert after["dev-0"] != before["dev-0"]
    assert after["dev-1"] == before["dev-1"], "the other slot is left alone"
    assert sorted(after.values()) == project.running()

    # Nothing that is printed, stored or shown to other users holds the token in clear.
    shown = command_lines()
    assert token not in said
    assert token.encode() not in read_all(project.folder.parent / "local workers")
    assert token.encode() not in read_all(Path(project.environment["PULUMI_HOME"]))
    state = project.environment["PULUMI_BACKEND_URL"].removeprefix("file://")
    assert after["dev-0"].encode() in read_all(Path(state))
    assert token.encode() not in read_all(Path(state))
    assert [line for line in shown if after["dev-0"] in line]
    assert not [line for line in shown if token in line]

    project.destroy()
    assert project.running() == []
    assert list(project.cloud.root.iterdir()) == []
    assert processes_under(project.cloud.root) == {}


def test_a_fleet_grows_shrinks_and_changes_slot_by_slot(project: Project) -> None:
    project.declare({**DEV, "count": 1})
    project.up()
    one = project.instances()

    project.declare({**DEV, "count": 1}, {"name": "more", "cloud": "local", "count": 2})
    project.up()
    three = project.instances()
    assert set(three) == {"dev-0", "more-0", "more-1"}
    assert three["dev-0"] == one["dev-0"]

    project.declare({**DEV, "count": 1}, {"name": "more", "cloud": "local", "count": 1})
    project.up()
    two = project.instances()
    assert two == {slot: three[slot] for slot in ("dev-0", "more-0")}
    assert project.running() == sorted(two.values())

    project.declare(
        {**DEV, "count": 1}, {"name": "more", "cloud": "local", "count": 1, "preset": "htdemucs"}
    )
    said = project.pulumi("preview")
    assert [line for line in said.splitlines() if "more-0" in line and "replace" in line]
    assert not [line for line in said.splitlines() if "dev-0" in line and "replace" in line]

    project.declare({**DEV, "count": 1})
    urn = (
        "urn:pulumi:dev::stemfleet::stemfleet:index:Fleet$pulumi-python:dynamic/stemfleet:Identity"
    )
    token = project.outputs()["token"]
    project.up("--replace", f"{urn}::identity")
    assert project.outputs()["token"] != token
    renewed = project.instances()
    assert renewed["dev-0"] != two["dev-0"], "another token is another worker"
    assert project.running() == sorted(renewed.values())
    project.destroy()


def test_a_configuration_that_cannot_be_used_is_told_key_by_key(project: Project) -> None:
    project.declare({**DEV, "count": 0}, {**DEV, "name": "b", "prest": "center"})
    said = project.up(fails=True)
    assert "stemfleet:groups[0].count: a group has at least one worker, not 0" in said
    assert "stemfleet:groups[1].prest: there is no such key; did you mean 'preset'?" in said
    assert "Traceback" not in said

    project.pulumi("config", "set", "--path", "stemfleet:groups", "two")
    assert "groups" in project.pulumi("preview", fails=True)
    project.pulumi("config", "rm", "stemfleet:groups")
    assert "groups" in project.pulumi("preview", fails=True)
    assert project.running() == []


def test_a_fleet_that_cannot_become_ready_says_why_and_can_be_ended(project: Project) -> None:
    project.declare({**DEV, "preset": "centre"})
    said = project.up(fails=True)
    assert "slot dev-0: there is no preset 'centre'; there are: center" in said
    assert "slot dev-1" in said
    assert "pulumi destroy" in said
    assert "Traceback" not in said
    assert len(project.running()) == 2

    project.destroy()
    assert project.running() == []
    assert list(project.cloud.root.iterdir()) == []


def test_an_update_that_was_killed_is_taken_up_where_it_was(project: Project) -> None:
    killed = subprocess.Popen(
        [*project.command, "up", "--yes", "--skip-preview"],
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not project.running():
        assert time.monotonic() < end
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    rented = project.running()
    assert rented

    project.release()
    project.up()
    assert sorted(project.instances().values()) == project.running()
    assert set(rented) <= set(project.running()), "what was rented is found by its label"
    assert len(project.running()) == 2
    project.destroy()
    assert project.running() == []
