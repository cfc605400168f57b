"""The parts of a running worker that its calls use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from stemserve.carrying.delivery import Deliveries
from stemserve.carrying.fetches import Fetches
from stemserve.jobs.store import Store
from stemserve.keeping.inputs import Inputs
from stemserve.keeping.retention import Retention
from stemserve.lease import Lease
from stemserve.running.runner import Runner
from stemserve.settings import Settings


@dataclass(frozen=True)
class Parts:
    """What belongs to one worker."""

    settings: Settings
    store: Store
    inputs: Inputs
    runner: Runner
    lease: Lease
    retention: Retention
    deliveries: Deliveries = field(default_factory=Deliveries)
    fetches: Fetches = field(default_factory=Fetches)


def attach(app: FastAPI, parts: Parts) -> None:
    """Let the calls of ``app`` work on these parts."""
    app.state.parts = parts


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Worker = Annotated[Parts, Depends(_parts)]
"""The parts, as the parameter of a route."""


def _caller(request: Request, worker: Worker) -> str:
    if worker.settings.token is None:
        return f"address {request.client.host if request.client else 'unknown'}"
    token = request.headers.get("authorization", "").partition(" ")[2].strip()
    return f"token {hashlib.sha256(token.encode()).hexdigest()[:16]}"


Caller = Annotated[str, Depends(_caller)]
"""Who calls, by a digest of the token or else by address, as the parameter of a route."""
