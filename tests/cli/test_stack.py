"""Reading a fleet from a stack, by the real engine over a state folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from stemctl.engine import find_engine
from stemctl.errors import StackError
from stemctl.fleet.stack import find_project, read_fleet

from tests.cli.driving import TOKEN, Answer, stemctl, write_song
from tests.service.worker import RunningWorker

pytestmark = pytest.mark.engine

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
"""What marks a secret in a deployment, by the engine's format."""


def pulumi(project: Path, *arguments: str, given: str = "") -> str:
    engine = find_engine()
    return subprocess.run(
        [engine.pulumi, *arguments, "--non-interactive"],
        cwd=project,
        env=engine.environment(),
        input=given,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def put_outputs(project: Path, outputs: dict[str, Any]) -> None:
    """Make the stack dev, with these outputs."""
    pulumi(project, "stack", "init", "dev")
    state = json.loads(pulumi(project, "stack", "export"))
    root = "pulumi:pulumi:Stack"
    state["deployment"]["resources"] = [
        {"urn": f"urn:pulumi:dev::stemfleet::{root}::x", "type": root, "outputs": outputs}
    ]
    pulumi(project, "stack", "import", given=json.dumps(state))


def fleet_outputs(*urls: str) -> dict[str, Any]:
    rows = [
        {
            "slot": f"stemfleet.dev.local-{number}",
            "url": url,
            "cloud": "local",
            "gpu": "cpu",
            "usdPerHour": 0.25,
            "region": "here",
            "instanceId": str(number),
            "realtime": 3.5,
        }
        for number, url in enumerate(urls)
    ]
    secret = {**SECRET, "plaintext": json.dumps(TOKEN)}
    return {"endpoints": rows, "usdPerHour": 0.25 * len(urls), "token": secret}


def asked(project: Path, *command: object) -> Answer:
    """stemctl in the project, with no token but the stack's."""
    answer = stemctl(*command, cwd=project, token=None)
    assert TOKEN not in answer.out + answer.err
    return answer


def test_the_fleet_and_its_token_come_from_the_stack(
    project: Path, workers: list[RunningWorker], tmp_path: Path
) -> None:
    put_outputs(project, fleet_outputs(*(worker.url for worker in workers)))
    inside = project / "deeper"
    inside.mkdir()
    song = write_song(inside / "song.wav")
    answer = asked(inside, "submit", song, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["tracks"][0]["worker"].startswith("stemfleet.dev.local-")
    assert (inside / "stems" / "song" / "vocals.wav").exists()

    listed = asked(tmp_path, "endpoints", "--project", project, "--json").json
    assert listed["usd_per_hour"] == 0.5
    assert [(row["slot"], row["cloud"], row["alive"]) for row in listed["endpoints"]] == [
        (f"stemfleet.dev.local-{number}", "local", True) for number in range(2)
    ]
    findings = asked(project, "doctor", "--json").json["findings"]
    checks = [finding["check"] for finding in findings]
    assert checks[:4] == ["out", "engine", "project", "stack"]
    assert len(findings) == 6
    assert all(finding["ok"] for finding in findings)


def test_a_stack_that_is_not_there_says_how_to_make_it(project: Path) -> None:
    answer = asked(project, "status")
    assert answer.code == 2
    assert answer.err.startswith("stemctl: there is no stack dev in ")
    assert "pulumi up --stack dev" in answer.err
    assert asked(project, "status", "--stack", "prod", "--json").json["type"] == "stack"


def test_a_stack_without_outputs_and_one_without_endpoints(project: Path) -> None:
    pulumi(project, "stack", "init", "bare")
    answer = asked(project, "submit", ".", "--stack", "bare")
    assert answer.code == 2
    assert "no audio in .: name files" in answer.err
    write_song(project / "song.wav")
    answer = asked(project, "submit", ".", "--stack", "bare")
    assert answer.code == 2
    assert "stack bare has no outputs: run `pulumi up --stack bare`" in answer.err
    put_outputs(project, fleet_outputs())
    answer = asked(project, "submit", ".")
    assert answer.code == 2
    assert "stack dev has no endpoints: run `pulumi up --stack dev`" in answer.err


def test_a_wrong_passphrase_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_outputs(project, fleet_outputs("http://127.0.0.1:1"))
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "not the one")
    answer = asked(project, "endpoints")
    assert answer.code == 2
    assert "set PULUMI_CONFIG_PASSPHRASE" in answer.err
    assert len(answer.err.splitlines()) == 1
    doctor = asked(project, "doctor")
    assert doctor.code == 1
    assert "✗ stack: the secrets of stack dev are locked" in doctor.out


def test_a_state_that_was_cut_short_can_be_mended(project: Path) -> None:
    put_outputs(project, fleet_outputs("http://127.0.0.1:1"))
    backend = Path(os.environ["PULUMI_BACKEND_URL"].removeprefix("file://"))
    [state] = backend.glob(".pulumi/stacks/*/dev.json")
    state.write_bytes(b"")
    answer = asked(project, "endpoints")
    assert answer.code == 2
    assert "copy dev.json.bak, which lies beside it, to dev.json" in answer.err
    state.write_bytes(state.with_name("dev.json.bak").read_bytes())
    assert "has no outputs: run `pulumi up" in asked(project, "endpoints").err


def test_no_project_says_where_to_go(tmp_path: Path) -> None:
    answer = asked(tmp_path, "endpoints")
    assert answer.code == 2
    assert "no Pulumi.yaml here or above" in answer.err
    with pytest.raises(StackError, match=r"has no Pulumi\.yaml"):
        find_project(tmp_path)


def test_outputs_of_another_program_are_told() -> None:
    with pytest.raises(StackError, match=r"not one that stemctl can read: its output endpoints\.0"):
        read_fleet({"endpoints": [{"slot": "a"}]}, "dev")
