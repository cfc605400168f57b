"""The command line's frame: light to start, errors in one line, the same in JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stemctl import complete
from stemctl.app import create_app
from stemctl.asked.licences import POLICIES
from stemctl.asked.wanted import ALL_STEMS
from stemserve.schema import BitDepth, Clip, StemFormat
from stemserve.separation.presets import PRESETS
from typer.testing import CliRunner

from tests.cli.driving import stemctl

COMMANDS = [
    "demo", "run", "submit", "runs", "report", "endpoints", "status", "top", "jobs", "logs",
    "cancel", "offers", "quote", "sweep", "preview-comment", "doctor", "config", "engine",
]  # fmt: skip
HEAVY = [
    "rich", "httpx", "pydantic", "anyio", "stamina", "numpy", "pulumi", "stemserve", "stemfleet",
    "vastai",
]  # fmt: skip


def test_help_names_every_command_and_the_exit_codes() -> None:
    answer = stemctl("--help")
    assert answer.code == 0
    listed = answer.out.partition("Commands:")[2].splitlines()
    assert [line.split()[0] for line in listed if line[2:3].strip()] == COMMANDS
    assert "Exit codes: 0" in answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_json(command: str) -> None:
    answer = CliRunner().invoke(create_app(), [command, "--help"])
    assert answer.exit_code == 0
    assert "--json" in answer.stdout or command == "engine"


def test_nothing_heavy_is_imported_to_show_the_help() -> None:
    program = (
        "import sys, json\nfrom stemctl.app import create_app\n"
        "try: create_app()(['--help'])\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stderr)}
    assert not loaded & set(HEAVY)


def test_a_wrong_command_line_is_exit_code_2_with_a_hint() -> None:
    answer = stemctl("submitt")
    assert answer.code == 2
    assert "Did you mean 'submit'?" in answer.err
    assert stemctl("submit").code == 2


def test_with_json_a_wrong_command_line_is_json_too() -> None:
    answer = stemctl("endpoints", "--sort", "--json")
    assert answer.code == 2
    assert answer.json["type"] == "command-line"
    assert "--sort" in answer.json["error"]
    assert answer.err == ""


def test_an_error_is_one_line_or_one_json_object() -> None:
    answer = stemctl("status", "--endpoint", "localhost:1")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("stemctl: --endpoint localhost:1: give a URL")
    assert len(answer.err.splitlines()) == 1
    answer = stemctl("status", "--endpoint", "localhost:1", "--json")
    assert (answer.code, answer.err) == (2, "")
    assert answer.json["type"] == "stack"


def test_json_behind_two_dashes_is_an_input() -> None:
    answer = stemctl("submit", "--", "--json")
    assert answer.code == 2
    assert answer.err.startswith("stemctl: ")


def completed(shell: str, line: str) -> str:
    """What the shell offers at the end of a line."""
    done = subprocess.run(
        [sys.executable, "-m", "stemctl"],
        env={
            "_STEMCTL_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    offered = completed(shell, "stemctl en")
    assert "endpoints" in offered
    assert "submit" not in offered
    assert "ensemble-fast" in completed(shell, "stemctl submit --preset ens")
    assert "vocals,drums" in completed(shell, "stemctl submit --stems vocals,dr")


def test_what_is_completed_is_what_there_is() -> None:
    assert tuple(StemFormat) == complete.FORMATS
    assert tuple(BitDepth) == complete.BIT_DEPTHS
    assert tuple(Clip) == complete.CLIPS
    assert complete.LICENCES == POLICIES
    assert set(complete.PRESETS) == set(PRESETS)
    stems = {stem for preset in PRESETS.values() for stem in preset.stems}
    assert set(complete.STEMS) == stems | {ALL_STEMS, "instrumental"}


def test_completion_can_be_installed(home: Path) -> None:
    assert stemctl("--install-completion", "bash").code == 0
    assert "_STEMCTL_COMPLETE" in (home / ".bash_completions" / "stemctl.sh").read_text()
