"""The rented machine under a worker, which the worker itself can end.

A cloud gives each machine a key that is good for that machine alone, in its environment; the
account's key is never there. What such a key may do differs: where destroying is refused, stopping
may not be, and a machine that is stopped costs its disk only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
from pydantic import SecretStr

from stemserve.settings import Settings

if TYPE_CHECKING:
    import httpx

TRIES = 5
PAUSE_S = 2.0
"""After the first try that failed in a way that may pass; twice as long after each further one."""

LONGEST_PAUSE_S = 30.0
LINGER_S = 60.0
"""In which a cloud that has agreed to end a machine ends this process with it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One request to a cloud, and what it does to the machine."""

    does: str
    method: str
    url: str
    body: dict[str, str] | None = None


@dataclass(frozen=True)
class Machine:
    """A machine by its cloud's name of it; ``calls`` in the order in which they are tried."""

    name: str
    key: SecretStr = field(repr=False)
    calls: tuple[Call, ...]


def find_machine(
    settings: Settings, environment: Mapping[str, str] | None = None
) -> Machine | None:
    """The machine that the environment tells of; None on one that nobody rents out."""
    told = os.environ if environment is None else environment
    id_, key = told.get("CONTAINER_ID"), told.get("CONTAINER_API_KEY")
    if id_ and key:
        url = f"{settings.vast_url.rstrip('/')}/api/v0/instances/{quote(id_, safe='')}/"
        destroy = Call("destroy", "DELETE", url, {})
        stop = Call("stop", "PUT", url, {"state": "stopped"})
        return Machine(f"instance {id_} on Vast.ai", SecretStr(key), (destroy, stop))
    id_, key = told.get("RUNPOD_POD_ID"), told.get("RUNPOD_API_KEY")
    if id_ and key:
        url = f"{settings.runpod_url.rstrip('/')}/v2/pods/{quote(id_, safe='')}"
        destroy = Call("destroy", "DELETE", url)
        stop = Call("stop", "POST", f"{url}/action", {"action": "stop"})
        return Machine(f"pod {id_} on RunPod", SecretStr(key), (destroy, stop))
    return None


async def end_machine(
    machine: Machine, *, pause_s: float = PAUSE_S, linger_s: float = LINGER_S
) -> None:
    """End the machine, and this process with it. Returns only if that could not be done."""
    import httpx  # it would slow every start down

    headers = {"Authorization": f"Bearer {machine.key.get_secret_value()}"}
    async with httpx.AsyncClient(headers=headers, timeout=15.0) as client:
        for call in machine.calls:
            if await _agreed(client, machine, call, pause_s):
                await anyio.sleep(linger_s)
                _log.error("%s was told to %s, and is still there", machine.name, call.does)
    _log.error(
        "%s could not be ended and may go on costing: end it with `pulumi destroy`, or by hand",
        machine.name,
    )


async def _agreed(client: httpx.AsyncClient, machine: Machine, call: Call, pause_s: float) -> bool:
    """Whether the cloud has said yes, after some tries where it could not answer."""
    import httpx

    for attempt in range(1, TRIES + 1):
        pause: float | None = min(pause_s * 2 ** (attempt - 1), LONGEST_PAUSE_S)
        try:
            answer = await client.request(call.method, call.url, json=call.body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
        else:
            reason = str(answer.status_code)
            if answer.is_success and not _is_no(answer):
                _log.warning("%s: the cloud agrees to %s it", machine.name, call.does)
                return True
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                pause = None
        tries = f"try {attempt} of {TRIES}"
        _log.warning("%s: cannot %s it (%s), %s", machine.name, call.does, reason, tries)
        if pause is None:
            return False
        if attempt < TRIES:
            await anyio.sleep(pause)
    return False


def _is_no(answer: httpx.Response) -> bool:
    """Whether a cloud that answers 200 has refused in the body."""
    try:
        body: Any = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("success") is False
