"""The fleet that a command speaks to: what a Pulumi stack says of it, or endpoints given by hand.

This is all that stemctl knows of Pulumi: a project directory, a stack's name, and the outputs
``endpoints``, ``token``, ``ca`` and ``usdPerHour`` of that stack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from stemfleet.clouds.trust import trust_only

from stemctl.asked.naming import without_secrets
from stemctl.engine.ask import ask_engine
from stemctl.errors import StackError

TOKEN_VARIABLE = "STEMCTL_TOKEN"  # noqa: S105
CA_VARIABLE = "STEMCTL_CA"
"""Names the file with what is trusted of endpoints given by hand: a stack's output ``ca``."""

NO_SUCH_STACK = 6
"""The engine's exit code for a stack that is not there."""


class Endpoint(BaseModel):
    """A worker's URL and facts, as the stack has them."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    slot: str
    url: str
    cloud: str = ""
    gpu: str = ""
    usd_per_hour: float = 0.0
    region: str = ""
    instance_id: str = ""
    realtime: float | None = Field(None, description="Seconds of audio a second, when it was tried")
    boot_seconds: float = Field(0.0, description="From its renting until its cloud said: it runs")
    own_certificate: bool = Field(False, description="It shows the stack's certificate")
    ca: str | None = Field(
        None, exclude=True, repr=False, description="All that is trusted of it, as PEM text"
    )


class Fleet(BaseModel):
    """All workers of a stack, and the token that they demand."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    endpoints: tuple[Endpoint, ...]
    ca: str | None = None
    token: str | None = Field(None, repr=False)
    usd_per_hour: float = 0.0


def find_fleet(project: Path | None, stack: str, urls: Sequence[str] = ()) -> Fleet:
    """The fleet of a stack; with ``urls`` just these workers, and no stack is asked.

    Raises:
        EngineError: there is no Pulumi engine to ask.
        StackError: no project, no such stack, none or wrong outputs; or a URL that is none.
    """
    if urls:
        ca = _given_ca()
        endpoints = tuple(_given(url, ca) for url in dict.fromkeys(urls))
        return Fleet(endpoints=endpoints, token=os.environ.get(TOKEN_VARIABLE))
    return read_fleet(stack_outputs(find_project(project), stack), stack)


def find_project(project: Path | None) -> Path:
    """The folder with Pulumi.yaml: ``project`` itself, else the nearest upward from here."""
    if project is not None:
        if not (project / "Pulumi.yaml").is_file():
            raise StackError(f"{project} has no Pulumi.yaml: give --project the project's folder")
        return project
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    raise StackError(
        "no Pulumi.yaml here or above: go to the project's folder, or name it with --project"
    )


def stack_outputs(project: Path, stack: str) -> dict[str, Any]:
    """Every output of a stack, secrets in plain, as the engine tells them."""
    answer = ask_engine(project, "stack", "output", "--json", "--show-secrets", "--stack", stack)
    if answer.returncode != 0:
        raise StackError(_refusal(answer.returncode, answer.stderr, stack, project))
    outputs: dict[str, Any] = json.loads(answer.stdout or "{}")
    return outputs


def _refusal(code: int, said: str, stack: str, project: Path) -> str:
    if code == NO_SUCH_STACK or "no stack named" in said:
        return f"there is no stack {stack} in {project}: run `pulumi up --stack {stack}` there"
    if "passphrase" in said:
        return (
            f"the secrets of stack {stack} are locked: set PULUMI_CONFIG_PASSPHRASE "
            "(or PULUMI_CONFIG_PASSPHRASE_FILE) to its passphrase"
        )
    if "failed to load checkpoint" in said:
        return (
            f"the state of stack {stack} is cut short, as by a pulumi that was killed while it "
            f"wrote: copy {stack}.json.bak, which lies beside it, to {stack}.json and run "
            "`pulumi up`; it finds its machines again"
        )
    reason = " ".join(said.replace("error:", "").split()) or f"exit code {code}"
    return f"the engine could not tell the outputs of stack {stack}: {reason}"


def read_fleet(outputs: dict[str, Any], stack: str) -> Fleet:
    """The fleet that a stack's outputs describe.

    Raises:
        StackError: an output is missing or is not what this program's stacks have.
    """
    if not outputs.get("endpoints"):
        what = "no endpoints" if "endpoints" in outputs else "no outputs"
        raise StackError(f"stack {stack} has {what}: run `pulumi up --stack {stack}`")
    try:
        fleet = Fleet.model_validate(outputs)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StackError(
            f"stack {stack} is not one that stemctl can read: its output {where}: {first['msg']}"
        ) from None
    if any(endpoint.own_certificate for endpoint in fleet.endpoints):
        _check_ca(fleet.ca, f"the output ca of stack {stack}")
    endpoints = tuple(
        endpoint.model_copy(update={"ca": fleet.ca}) if endpoint.own_certificate else endpoint
        for endpoint in fleet.endpoints
    )
    return fleet.model_copy(update={"endpoints": endpoints})


def _given_ca() -> str | None:
    path = os.environ.get(CA_VARIABLE)
    if not path:
        return None
    try:
        ca = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(f"{CA_VARIABLE}: {path} cannot be read: {error}") from None
    _check_ca(ca, f"{CA_VARIABLE}: {path}")
    return ca


def _check_ca(ca: str | None, where: str) -> None:
    try:
        trust_only(ca or "")
    except ValueError as error:
        raise StackError(
            f"{where} holds {error}; it should be what `pulumi stack output ca` gives"
        ) from None


def _given(url: str, ca: str | None) -> Endpoint:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        shown = without_secrets(url)
        raise StackError(f"--endpoint {shown}: give a URL such as http://127.0.0.1:8185")
    if parts.username is not None:
        raise StackError(
            f"--endpoint {without_secrets(url)}: leave out name and password: a worker takes a "
            "token, which is read from STEMCTL_TOKEN"
        )
    name = parts.netloc + parts.path.rstrip("/")
    own = ca is not None and parts.scheme == "https"
    return Endpoint(slot=name, url=url.rstrip("/"), own_certificate=own, ca=ca if own else None)
