"""What the tests of rented fleets share: both clouds, emulated, and what must hold on them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.clouds.clock import Clock
from tests.clouds.ledger import Contract
from tests.clouds.machines import Start
from tests.clouds.runpod import RunpodEmulator
from tests.clouds.vast import VastEmulator
from tests.e2e.conftest import Project
from tests.infra.runpods import put

PREFIX = "stemfleet.dev."
FOREIGN = "stemfleet.development"
"""What somebody else has rented with the same accounts, under nearly our labels."""

RATE = 60.0
SURGE = 4
"""Machines over the declared ones that may be paid for at a time: one for each thread of a provider
that was cut off while it rented, until the next one finds two under a label."""

IMAGE = "ghcr.io/example/worker:1"
SECONDS = 120


@dataclass(frozen=True)
class Clouds:
    """Both markets, and somebody else's machine on each."""

    vast: VastEmulator
    runpod: RunpodEmulator

    def contracts(self) -> list[Contract]:
        """All that the project has ever rented under the stack's labels."""
        return [one for cloud in self._both for one in cloud.ledger.contracts(PREFIX)]

    def alive(self) -> dict[str, str]:
        """Labels of what is paid for, by the machine's id."""
        return {one.id: one.label for one in self.contracts() if one.alive}

    def calls(self) -> int:
        """Requests so far."""
        return sum(len(cloud.ledger.calls()) for cloud in self._both)

    @property
    def _both(self) -> tuple[VastEmulator, RunpodEmulator]:
        return self.vast, self.runpod

    def check(self, declared: int, texts: str = "") -> None:
        """What holds at any time, whatever was done; and that no key is in ``texts``."""
        for cloud in self._both:
            assert len(cloud.ledger.alive(FOREIGN)) == 1, "what is not ours was ended"
            assert cloud.ledger.most_alive(PREFIX) <= declared + SURGE
            assert cloud.key not in texts
            for contract in cloud.ledger.contracts():
                assert cloud.key not in str(contract.environment)


@contextmanager
def rented(project: Project, start: Start) -> Iterator[Clouds]:
    """The clouds that the project's engine finds, sixty times as fast as real ones."""
    with (
        VastEmulator(clock=Clock(RATE), start=start) as vast,
        RunpodEmulator(start, rate=RATE).serve() as runpod,
    ):
        project.environment.update({**vast.environment(), **runpod.environment})
        vast.rent_by_hand(FOREIGN)
        put(runpod, FOREIGN)
        yield Clouds(vast, runpod)


def state_of(project: Project) -> str:
    """The stack's state, as it is stored."""
    return project.pulumi("stack", "export")


def labels_in(state: str) -> set[str]:
    """The labels of the slots in a state."""
    resources = json.loads(state)["deployment"].get("resources") or ()
    ids = {str(one.get("id", "")) for one in resources}
    return {label for label in ids if label.startswith(PREFIX)}


def stemctl(project: Project, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run stemctl with ``--json``: its exit code and what it has printed."""
    done = subprocess.run(
        [sys.executable, "-m", "stemctl", *arguments, "--project", str(project.folder), "--json"],
        env=project.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)
