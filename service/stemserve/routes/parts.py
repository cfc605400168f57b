"""The parts of a running worker that its calls use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from stemserve.inputs import Inputs
from stemserve.runner import Runner
from stemserve.settings import Settings
from stemserve.store import Store


@dataclass(frozen=True)
class Parts:
    """What `create_app` was given."""

    settings: Settings
    store: Store
    inputs: Inputs
    runner: Runner


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Worker = Annotated[Parts, Depends(_parts)]
"""The parts, as the parameter of a route."""
