"""Workers that come and go while a run goes on: the fleet is looked at again now and then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import anyio
from stemserve.schema import Status

from stemctl.asked.licences import check_granted
from stemctl.dispatch.crew import Member
from stemctl.dispatch.dispatch import Dispatch
from stemctl.errors import InputError, StemctlError
from stemctl.fleet.stack import Fleet
from stemctl.worker.client import Worker
from stemctl.worker.probe import probe_fleet

LOOK_EVERY_S = 60.0
"""To ask a stack takes the engine about a second."""
SOON_S = 5.0
"""So soon, where nobody is left."""

Look = Callable[[], Awaitable[Fleet]]
Open = Callable[[Worker], Awaitable[Worker]]


@dataclass(frozen=True)
class Newcomers:
    """What those that join must know."""

    presets: Collection[str]
    """Those of the run's tracks."""
    granted: bool
    """Only those whose weights carry a grant."""
    open_worker: Open
    """Opens a client for as long as the run lasts."""


async def look_out(dispatch: Dispatch, look: Look, newcomers: Newcomers) -> None:
    """Let workers join that have appeared or are well again, and those go that have left.

    ``look`` gives the fleet as it is now.
    """
    while True:
        with anyio.move_on_after(LOOK_EVERY_S):
            await dispatch.deserted()
            await anyio.sleep(SOON_S)
        try:
            fleet = await look()
        except StemctlError:
            continue  # an update may be under way
        known = {(m.slot, m.worker.endpoint.url): m for m in dispatch.members}
        there = {(endpoint.slot, endpoint.url) for endpoint in fleet.endpoints}
        for key, member in known.items():
            if key not in there:
                await dispatch.let_go(member, "it is not in the fleet any more")
        asked = [
            endpoint
            for endpoint in fleet.endpoints
            if (old := known.get((endpoint.slot, endpoint.url))) is None
            or (old.aside is not None and old.may_return)
        ]
        for probe in await probe_fleet(fleet.model_copy(update={"endpoints": tuple(asked)})):
            endpoint = probe.endpoint
            serves = presets_served(probe.status, newcomers)
            old = known.get((endpoint.slot, endpoint.url))
            if not probe.ready or not serves:
                continue
            if old is not None:
                await dispatch.come_back(old)
            else:
                worker = await newcomers.open_worker(Worker(endpoint, fleet.token))
                dispatch.join(Member(worker, serves, speed=endpoint.realtime))


def presets_served(status: Status | None, newcomers: Newcomers) -> frozenset[str]:
    """Which of the presets a worker can serve, and may."""
    served = set()
    for preset in status.presets if status else ():
        if preset.available and preset.name in newcomers.presets:
            try:
                if newcomers.granted and status:
                    check_granted(preset.name, [status])
            except InputError:
                continue
            served.add(preset.name)
    return frozenset(served)
