"""From rented to proven: waits for all machines of all clouds, and replaces those that fail.

One list call per cloud and look, however many machines there are. A list that failed is no empty
list: nothing is replaced on its strength, and the next look asks again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from stemfleet.clouds.base import (
    Cloud,
    CloudError,
    GpuFilter,
    Machine,
    MachineState,
    RateLimitedError,
    UnreachableError,
    WorkerSpec,
)
from stemfleet.duds import remember, remembered
from stemfleet.errors import FleetError
from stemfleet.probe import (
    DudError,
    NotYetError,
    UnfitError,
    check_preset,
    check_ready,
    keep_on,
    open_client,
    prove,
)

STARTS = 3
"""Machines that a slot may use up in one update, the first one included."""

MISSING_LOOKS = 3
"""Lists in a row that must lack a machine before it counts as gone: some clouds list with a lag."""

FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.5, 5.0
ATTEMPT_SECONDS, ATTEMPT_POLL_SECONDS = 1.0, 0.1
PROBES = 32
SAY_SECONDS = 10.0
KEEP_SECONDS = 120.0
"""So often a worker that waits for the others is told that it is wanted: they end when idle."""


@dataclass(frozen=True)
class Wanted:
    """A slot whose machine shall become ready."""

    slot: str
    cloud: Cloud
    want: GpuFilter
    spec: WorkerSpec
    min_realtime: float = 0.0
    """A machine that separates more slowly than this many seconds of music a second is a dud."""


@dataclass(frozen=True)
class Proven:
    """A slot whose machine has separated. ``realtime``: seconds of music per second of work;
    ``boot_seconds``: from when it was waited for until its cloud said that it runs."""

    slot: str
    cloud: str
    machine: Machine
    realtime: float
    boot_seconds: float
    own_certificate: bool = False
    """It shows the stack's certificate, not one that the web trusts."""


class _Slot:
    """How far one slot is."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.since = time.monotonic()
        self.starts = 1
        self.missing = 0
        self.avoid: frozenset[str] = frozenset()
        self.machine: Machine | None = None
        self.boot_seconds: float | None = None
        self.probe: Future[float] | None = None
        self.state = "its machine is not listed yet"
        self.proven: Proven | None = None
        self.kept_at = 0.0
        self.failure: str | None = None

    @property
    def settled(self) -> bool:
        return self.proven is not None or self.failure is not None


class Watch:
    """One wait for a fleet, at most ``timeout`` seconds long.

    ``known`` holds the realtime of machines, by instance id, that have separated before: those are
    asked whether they are ready, and given no job, as they may be busy with their own.
    """

    def __init__(
        self,
        prefix: str,
        wanted: Sequence[Wanted],
        timeout: float,
        known: Mapping[str, float],
        say: Callable[[str], None],
    ) -> None:
        self.prefix = prefix
        self.slots = [_Slot(one) for one in wanted]
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.known = known
        self.say = say
        self.interval = FIRST_LOOK_SECONDS
        self.last_line = ""

    def run(self) -> list[Proven]:
        """Every slot's proven machine, in the order asked.

        Raises:
            FleetError: a slot has none: each with its reason, and the next step.
        """
        # Two for each slot: a probe of a machine that was replaced may not have ended yet.
        threads = min(PROBES, 2 * len(self.slots))
        with ThreadPoolExecutor(threads) as pool:
            self._settle_all(pool)
        failures = [f"slot {one.wanted.slot}: {one.failure}" for one in self.slots if one.failure]
        if failures:
            raise FleetError(
                "\n".join(failures) + "\nMend the cause, then `pulumi up` again: workers that are "
                "ready stay. `pulumi destroy` ends them all."
            )
        return [one.proven for one in self.slots if one.proven is not None]

    def _settle_all(self, pool: ThreadPoolExecutor) -> None:
        next_look = next_word = 0.0
        while open_slots := [one for one in self.slots if not one.settled]:
            now = time.monotonic()
            if now > self.deadline:
                for one in open_slots:
                    one.failure = f"not ready after {self.timeout:.0f} s: {one.state}"
                return
            if now >= next_look:
                self._look(open_slots)
                next_look = now + self.interval
                self.interval = min(self.interval * 1.3, LAST_LOOK_SECONDS)
            self._keep(pool, now)
            if now >= next_word:
                next_word = now + SAY_SECONDS
                self._say_what_is_open(open_slots)
            for one in open_slots:
                if one.machine is not None and one.machine.url and one.probe is None:
                    one.probe = pool.submit(self._attempt, one.machine, one.machine.url, one.wanted)
            self._wait(open_slots, next_look - time.monotonic())
            for one in open_slots:
                self._conclude(one)

    def _keep(self, pool: ThreadPoolExecutor, now: float) -> None:
        for one in self.slots:
            if one.proven and one.wanted.spec.idle_minutes and now - one.kept_at > KEEP_SECONDS:
                one.kept_at = now
                pool.submit(_keep_on, str(one.proven.machine.url), one.wanted.spec)

    def _wait(self, open_slots: list[_Slot], seconds: float) -> None:
        probes = [one.probe for one in open_slots if one.probe is not None]
        if probes:
            wait(probes, timeout=max(0.0, seconds), return_when=FIRST_COMPLETED)
        else:
            time.sleep(max(0.0, seconds))

    def _look(self, open_slots: list[_Slot]) -> None:
        for cloud in {one.wanted.cloud.name: one.wanted.cloud for one in open_slots}.values():
            its_slots = [one for one in open_slots if one.wanted.cloud.name == cloud.name]
            try:
                machines = {machine.label: machine for machine in cloud.machines(self.prefix)}
            except (RateLimitedError, UnreachableError) as error:
                for one in its_slots:
                    one.state = str(error)
                continue
            for one in its_slots:
                self._judge(one, machines.get(one.wanted.spec.label))

    def _judge(self, one: _Slot, machine: Machine | None) -> None:
        one.missing = 0 if machine is not None else one.missing + 1
        if one.missing >= MISSING_LOOKS:
            self._replace(one, "its machine is gone")
        elif machine is not None and machine.state is MachineState.FAILED:
            self._replace(one, machine.detail)
        elif time.monotonic() - one.since > self.timeout / 2:
            where = f"; {machine.detail}" if machine is not None and machine.detail else ""
            self._replace(one, f"not ready for {self.timeout / 2:.0f} s: {one.state}{where}")
        elif machine is not None:
            if one.machine is None:
                one.state = "it boots"
            one.machine = machine
            if one.boot_seconds is None and machine.state is MachineState.RUNNING:
                one.boot_seconds = time.monotonic() - one.since
            if not machine.url:
                one.state = machine.detail or "its address is not known yet"

    def _attempt(self, machine: Machine, url: str, wanted: Wanted) -> float:
        """The worker's realtime. Waits a little for one that is about to be ready."""
        spec, least = wanted.spec, wanted.min_realtime
        give_up = time.monotonic() + ATTEMPT_SECONDS
        with open_client(url, spec.certificate) as client:
            while True:
                try:
                    check_ready(client, url, spec.token)
                    break
                except NotYetError:
                    if time.monotonic() > give_up:
                        check_preset(client, url, spec.token, spec.preset)
                        raise
                    time.sleep(ATTEMPT_POLL_SECONDS)
            realtime = self.known.get(machine.id, -1.0)
            # Twice, if need be: the first job of a worker may have to load a network before.
            for _ in range(2):
                if realtime < least or realtime < 0:
                    realtime = prove(client, url, spec.token, spec.preset, self.deadline)
        if realtime < least:
            raise DudError(f"it separates at {realtime:g} × realtime, the group asks for {least:g}")
        return realtime

    def _conclude(self, one: _Slot) -> None:
        if one.settled or one.probe is None or one.machine is None or not one.probe.done():
            return
        probe, one.probe = one.probe, None
        try:
            realtime = probe.result()
        except NotYetError as error:
            one.state = str(error)
        except DudError as error:
            self._replace(one, f"{error}; {one.machine.detail}")
        except UnfitError as error:
            one.failure = str(error)
        else:
            wanted, own = one.wanted, one.wanted.spec.certificate is not None
            one.kept_at = time.monotonic()
            one.proven = Proven(
                wanted.slot, wanted.cloud.name, one.machine, realtime, one.boot_seconds or 0.0, own
            )
            self.say(f"{one.wanted.slot} is ready: {realtime:g} × realtime, {one.machine.url}")

    def _replace(self, one: _Slot, reason: str) -> None:
        wanted = one.wanted
        if one.machine is not None and one.machine.host:
            one.avoid |= {one.machine.host}
            remember(wanted.cloud.name, one.machine.host)
        if one.starts >= STARTS:
            one.failure = f"{reason} ({STARTS} workers were tried)"
            return
        self.say(f"{wanted.slot} is replaced: {reason}")
        avoid = one.avoid | remembered(wanted.cloud.name)
        try:
            wanted.cloud.destroy(wanted.spec.label)
            one.machine = wanted.cloud.rent(wanted.want, wanted.spec, avoid)
        except CloudError as error:
            one.failure = f"{reason}. No other worker could be had: {error}"
            return
        one.starts += 1
        one.missing, one.since, one.probe = 0, time.monotonic(), None
        one.boot_seconds = None
        one.state = f"it boots, in place of one that failed: {reason}"
        self.interval = FIRST_LOOK_SECONDS

    def _say_what_is_open(self, open_slots: list[_Slot]) -> None:
        """What is waited for; once, however long it stays the same."""
        done = f"{len(self.slots) - len(open_slots)} of {len(self.slots)} workers are ready"
        line = f"{done}; {open_slots[0].wanted.slot}: {open_slots[0].state}"
        if line != self.last_line:
            self.last_line = line
            self.say(line)


def _keep_on(url: str, spec: WorkerSpec) -> None:
    with open_client(url, spec.certificate) as client:
        keep_on(client, url, spec.token)
