"""Get a Pulumi engine: the one on PATH, else the official installer, else a build from source."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from stemctl.engine import build
from stemctl.engine.find import Engine, cache, examine, find_engine
from stemctl.engine.launcher import write_launcher
from stemctl.errors import EngineError
from stemctl.steps import Step

INSTALLER_LIMIT_S = 10 * 60

# The SDK's own function, in a process of its own: it prints, and knows no time limit.
INSTALLER = """
import socket, sys
socket.setdefaulttimeout(20)
from pulumi.automation import PulumiCommand
PulumiCommand.install(root=sys.argv[1])
"""

WAYS = """\
no Pulumi engine could be had. Any one of these three gives one:
  1. install Pulumi 3.200 or newer yourself, so that `pulumi` is on PATH (https://www.pulumi.com/docs/install)
     now: {path}
  2. let the official installer be reached (https://get.pulumi.com)
     now: {installer}
  3. install Go {go} or newer, with a module proxy that can be reached, to build it from source
     now: {source}
then run `stemctl engine install` again"""


def install_engine() -> Engine:
    """Make an engine usable in this environment, and remember it: the second call is quick.

    Raises:
        EngineError: none of the three ways worked; says what each lacks.
    """
    built = cache() / build.VERSION
    if built.exists():
        build.put_language_host(built)
    try:
        engine = find_engine()
    except EngineError as error:
        none_found = str(error)
    else:
        write_launcher(engine)
        return engine
    with only_one():
        engine = fetched(none_found)
    write_launcher(engine)
    return engine


def fetched(none_found: str) -> Engine:
    """The engine from the official installer, else from source."""
    try:
        return from_installer()
    except EngineError as error:
        no_installer = str(error)
    try:
        return from_source()
    except EngineError as error:
        on_path = none_found.partition("\n")[2].strip() or "there is none on PATH"
        go = ".".join(map(str, build.OLDEST_GO))
        raise EngineError(
            WAYS.format(path=on_path, installer=no_installer, go=go, source=error)
        ) from error


def from_installer() -> Engine:
    """The release that fits the SDK, by the SDK's own installer."""
    target = cache() / version("pulumi")
    if not (target / "bin" / "pulumi").exists():
        with Step("Install the Pulumi engine", "asking the official installer"):
            try:
                answer = subprocess.run(
                    [sys.executable, "-c", INSTALLER, str(target)],
                    capture_output=True,
                    text=True,
                    timeout=INSTALLER_LIMIT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise EngineError(f"it took over {INSTALLER_LIMIT_S // 60} minutes") from error
            if answer.returncode != 0:
                lines = answer.stderr.strip().splitlines() or ["it failed"]
                raise EngineError(lines[-1][:200])
    return examine(target / "bin" / "pulumi", "from the official installer")


def from_source() -> Engine:
    """The release that can be built from its Go module."""
    target = cache() / build.VERSION
    if not (target / "bin" / "pulumi").exists():
        with Step("Build the Pulumi engine from source", "once, about five minutes") as step:
            build.build(target, step.tell)
    return examine(target / "bin" / "pulumi", "built from source")


@contextmanager
def only_one() -> Iterator[None]:
    """Two installs at a time would build twice: the second waits, and finds the first's."""
    cache().mkdir(parents=True, exist_ok=True)
    handle = os.open(Path(cache(), "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
