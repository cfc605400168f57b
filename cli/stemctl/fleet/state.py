"""What the state backend holds of a project: its stacks, and the slots that each of them knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from stemctl.engine.ask import ask_engine
from stemctl.errors import StackError


@dataclass(frozen=True)
class State:
    """A project's stacks, as its backend has them."""

    labels: dict[str, frozenset[str]]
    """By stack: the ids of its resources. A slot's is its label."""
    unread: dict[str, str]
    """Stacks of which it is not known what they hold, and why."""


def project_name(project: Path) -> str:
    """The name in Pulumi.yaml, with which the labels of its machines begin.

    Raises:
        StackError: there is none.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        document = yaml.safe_load((project / "Pulumi.yaml").read_text())
        return str(document["name"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StackError(f"{project / 'Pulumi.yaml'} does not tell the project's name") from error


def read_state(project: Path) -> State:
    """Every stack of the project.

    Raises:
        EngineError: there is no engine.
        StackError: the backend does not tell which stacks there are.
    """
    listed = ask_engine(project, "stack", "ls", "--json")
    if listed.returncode:
        reason = " ".join(listed.stderr.replace("error:", "").split())
        raise StackError(f"the engine could not list the stacks: {reason}")
    locks = _locks(project)
    labels: dict[str, frozenset[str]] = {}
    unread: dict[str, str] = {}
    for row in json.loads(listed.stdout):
        stack = str(row["name"]).rpartition("/")[2]
        if locks is not None and (held := _held(locks, stack)):
            unread[stack] = held
            continue
        try:
            labels[stack] = _ids(project, stack)
        except (StackError, ValueError, KeyError, TypeError) as error:
            unread[stack] = f"its state cannot be read ({error})"
    return State(labels, unread)


def held_lock(project: Path, stack: str) -> str | None:
    """Why a stack cannot be changed now, and what to do; None: as far as is known, it can."""
    locks = _locks(project)
    return None if locks is None else _held(locks, stack)


def _held(locks: Path, stack: str) -> str | None:
    if not any((locks / stack).glob("*.json")):
        return None
    return (
        "an update of it is running, or was killed: wait for its end, or release it with "
        f"`pulumi cancel --stack {stack}`"
    )


def _ids(project: Path, stack: str) -> frozenset[str]:
    told = ask_engine(project, "stack", "export", "--stack", stack)
    if told.returncode:
        raise StackError(" ".join(told.stderr.replace("error:", "").split()))
    deployment: dict[str, Any] = json.loads(told.stdout)["deployment"]
    return frozenset(str(one["id"]) for one in deployment.get("resources") or () if one.get("id"))


def _locks(project: Path) -> Path | None:
    """Where a backend of files keeps the locks of the project's stacks; None: it is another."""
    told = ask_engine(project, "whoami", "--json")
    url = json.loads(told.stdout).get("url", "") if told.returncode == 0 else ""
    if not url.startswith("file:"):
        return None
    parts = urlsplit(url)
    folder = Path(url2pathname(parts.netloc + parts.path)).expanduser()
    return folder / ".pulumi" / "locks" / "organization" / project_name(project)
