"""Which Pulumi engine is there: on PATH, or installed before by `stemctl engine install`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from stemctl.errors import EngineError

OLDEST = (3, 200, 0)
"""The oldest engine whose project file and Python support are what Pulumi.yaml asks for."""

VERSION_TIMEOUT_S = 30


@dataclass(frozen=True)
class Engine:
    """A usable `pulumi` with its Python language host."""

    pulumi: Path
    version: str
    origin: str
    """Where it comes from, for people."""

    def variables(self) -> dict[str, str]:
        """What a shell needs to use it: this and nothing that the user has set himself."""
        wanted = {"PULUMI_SKIP_UPDATE_CHECK": "true"}
        if "PULUMI_CONFIG_PASSPHRASE_FILE" not in os.environ:
            # The dev stack is encrypted with the empty passphrase; whoever has a secret worth
            # keeping sets his own.
            wanted["PULUMI_CONFIG_PASSPHRASE"] = ""
        missing = {name: value for name, value in wanted.items() if name not in os.environ}
        path = os.pathsep.join([str(self.pulumi.parent), os.environ.get("PATH", os.defpath)])
        return {"PATH": path, **missing}

    def environment(self) -> dict[str, str]:
        """The whole environment of a process that runs it."""
        return {**os.environ, **self.variables()}


def cache() -> Path:
    """Where engines are kept: one folder a version, for all of the user's checkouts."""
    return platformdirs.user_cache_path("stemfleet") / "engine"


def launcher() -> Path | None:
    """Where this virtual environment has its `pulumi`; None outside of one."""
    if sys.prefix == sys.base_prefix:
        return None
    return Path(sys.prefix, "bin", "pulumi")


def find_engine() -> Engine:
    """The engine to use: the user's own on PATH first, then what was installed before.

    Raises:
        EngineError: there is none, or each that there is cannot be used.
    """
    refused: list[str] = []
    for pulumi, origin in candidates():
        try:
            return examine(pulumi, origin)
        except EngineError as error:
            refused.append(str(error))
    why = "".join(f"\n  {reason}" for reason in refused)
    raise EngineError(f"no Pulumi engine is installed: run `stemctl engine install`{why}")


def candidates() -> list[tuple[Path, str]]:
    """Where an engine could be, in order of preference."""
    found: list[tuple[Path, str]] = []
    ours = launcher()
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    foreign = [f for f in folders if ours is None or Path(f).resolve() != ours.parent.resolve()]
    on_path = shutil.which("pulumi", path=os.pathsep.join(foreign))
    if on_path:
        found.append((Path(on_path).absolute(), "on PATH"))
    if ours and ours.exists():
        found.append((ours, "installed for this environment"))
    found += [(p, "installed for this user") for p in sorted(cache().glob("*/bin/pulumi"))[::-1]]
    return found


def examine(pulumi: Path, origin: str) -> Engine:
    """The engine at a place, if it can be used.

    Raises:
        EngineError: it does not run, is too old, or has no Python language host.
    """
    try:
        answer = subprocess.run(
            [str(pulumi), "version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{pulumi} does not run: {error}") from error
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", answer.stdout.strip())
    if answer.returncode != 0 or numbers is None:
        raise EngineError(f"{pulumi} does not tell its version: {answer.stderr.strip()[:200]}")
    version = tuple(int(number) for number in numbers.groups())
    if version < OLDEST:
        wanted = ".".join(map(str, OLDEST[:2]))
        raise EngineError(f"{pulumi} is version {answer.stdout.strip()}, older than {wanted}")
    if pulumi != launcher() and not has_language_host(pulumi):
        raise EngineError(f"{pulumi} has no pulumi-language-python beside it or on PATH")
    return Engine(pulumi, ".".join(numbers.groups()), origin)


def has_language_host(pulumi: Path) -> bool:
    """Whether the engine will find what runs Python programs, in the places where it looks."""
    name = "pulumi-language-python"
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    return bool(
        shutil.which(name)
        or (pulumi.resolve().parent / name).exists()
        or list(home.glob(f"plugins/language-python-*/{name}"))
    )
