"""Starts a built file system as a container would be: its own processes, its user, nothing else.

The root is read-only; what can be written to is /data, given from outside, and /tmp. Only the
network is the machine's, so that a test reaches the worker on loopback.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_MOUNTS = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount --bind "$2" "$1/data"
root=$1 user=$3; shift 3
exec chroot --userspec="$user" "$root" /bin/sh -c 'cd /data && exec "$@"' sh "$@"
"""


@dataclass(frozen=True)
class Container:
    """How processes of an image are started on its file system."""

    root: Path
    data: Path
    """What it sees as /data."""
    configuration: Mapping[str, Any]
    given: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside, or in place of, the image's."""
    other_user: int | None = None
    """The number of a user that the image does not know; None: the image's own runs it."""

    @property
    def user(self) -> tuple[int, int]:
        """The numbers of the user and group that run it."""
        if self.other_user is not None:
            return self.other_user, 0
        lines = (self.root / "etc/passwd").read_text(encoding="utf-8").splitlines()
        rows = [line.split(":") for line in lines]
        return next((int(r[2]), int(r[3])) for r in rows if r[0] == self.configuration["User"])

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        return subprocess.run(
            self._command(command),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    @contextmanager
    def started(self, log: Path, arguments: Sequence[str] = ()) -> Iterator[psutil.Process]:
        """Its first process, as an engine starts it; ``arguments`` take the place of its Cmd."""
        words = [*self.configuration["Entrypoint"], *(arguments or self.configuration["Cmd"])]
        with log.open("ab") as output:
            outside = subprocess.Popen(
                self._command(words),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield psutil.Process(outside.pid)
        finally:
            outside.kill()  # and by --kill-child all that is inside
            outside.wait()

    @property
    def _environment(self) -> dict[str, str]:
        own = dict(line.split("=", 1) for line in self.configuration["Env"])
        return {**own, **self.given}

    def _command(self, words: Sequence[str]) -> list[str]:
        self.data.mkdir(exist_ok=True)
        os.chown(self.data, *self.user)
        user = ":".join(map(str, self.user))
        apart = ["/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child"]
        within = ["/bin/sh", "-c", _MOUNTS, "sh", str(self.root), str(self.data), user]
        return [*apart, *within, *words]
