"""A run as events for programs: one JSON object a line, as things happen, the report last."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stemctl.dispatch.crew import Trip
from stemctl.dispatch.report import Outcome, Report
from stemctl.errors import InputError
from stemctl.fleet.stack import Endpoint

PROGRESS_EVERY_S = 1.0
"""How often it is told of one trip that it got further within a stage."""


class Events:
    """A `Watcher` that writes lines. Each has ``event`` and ``time``, in seconds."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._told: dict[int, tuple[str, float]] = {}

    def joined(self, endpoint: Endpoint) -> None:
        """``worker``: it gets tracks from now on."""
        facts = endpoint.model_dump(include={"slot", "cloud", "gpu", "usd_per_hour"})
        self._write("worker", state="joined", **facts)

    def aside(self, slot: str, reason: str) -> None:
        """``worker``: it gets none any more."""
        self._write("worker", state="aside", slot=slot, reason=reason)

    def moved(self, trip: Trip) -> None:
        """``trip``: it is at a stage."""
        stage, when = self._told.get(trip.number, ("", 0.0))
        now = time.monotonic()
        if stage == trip.stage and now - when < PROGRESS_EVERY_S:
            return
        self._told[trip.number] = trip.stage, now
        self._write(
            "trip",
            trip=trip.number,
            track=trip.track.name,
            place=trip.track.place,
            worker=trip.slot,
            stage=trip.stage,
            fraction=round(trip.fraction, 4),
        )

    def over(self, trip: Trip, error: str | None) -> None:
        """``trip``: it has ended; it has brought something, or there is an error, or neither."""
        self._told.pop(trip.number, None)
        facts = {"track": trip.track.name, "place": trip.track.place, "worker": trip.slot}
        self._write("trip", trip=trip.number, **facts, stage="over", bore=trip.bore, error=error)

    def ended(self, outcome: Outcome) -> None:
        """``track``: it has ended."""
        self._write("track", **vars(outcome))

    def said(self, message: str) -> None:
        """``said``: what people are told."""
        self._write("said", message=message)

    def finished(self, report: Report) -> None:
        """``report``: the last line."""
        self._write("report", **report.as_json())

    def _write(self, event: str, **facts: Any) -> None:  # noqa: ANN401
        told = {"event": event, "time": round(time.time(), 3), **facts}
        print(json.dumps(told, ensure_ascii=False), file=self._out, flush=True)


@contextmanager
def open_events(place: str) -> Iterator[Events]:
    """Events to a file, which is made anew; ``-`` is standard output.

    Raises:
        InputError: the file cannot be written.
    """
    if place == "-":
        yield Events(sys.stdout)
        return
    try:
        out = Path(place).open(  # noqa: SIM115 (closed below)
            "w", encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise InputError(f"--events {place} cannot be written: {error.strerror}") from error
    with out:
        yield Events(out)
