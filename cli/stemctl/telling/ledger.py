"""The ledger: what every run into an output folder has done, in SQLite beside the stems.

It is written while a run goes on, so that a report is true also of a run that was killed. What lies
in the output is not told by it but by the record beside each track's stems, which gets there in one
step with them; the next run puts right what the ledger has missed by that.

A thread writes: whatever has come up since its last transaction goes into the next one. There is no
write-ahead log, for that does not work over a network; each transaction is whole or not there after
a kill or a loss of power. A ledger that cannot be written never costs a run.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from stemctl.asked.track import Track
from stemctl.dispatch.budget import Estimate
from stemctl.dispatch.crew import STAGES, Trip
from stemctl.dispatch.report import End, Outcome, Report
from stemctl.fleet.stack import Endpoint
from stemctl.places.staging import is_live
from stemctl.telling.tables import LEDGER, LedgerError, open_ledger

WAITING = "waiting"
"""A track's state until it has one of `End`."""

_BEGINS = {
    stage: f"UPDATE trips SET {stage} = coalesce({stage}, ?) WHERE run = ? AND trip = ?"  # noqa: S608
    for stage in STAGES
}

_LAST_SEEN = """
SELECT max(coalesce(max(ended), 0), coalesce(max(downloading), 0), coalesce(max(computing), 0),
    coalesce(max(waiting), 0), coalesce(max(uploading), 0), coalesce(max(reading), 0))
FROM trips WHERE run = ?
"""

_WAS_DONE = """
UPDATE tracks SET state = 'done', error = NULL, worker =
    (SELECT slot FROM trips t WHERE t.run = tracks.run AND t.place = tracks.place
     ORDER BY trip DESC LIMIT 1)
WHERE place = ? AND state = 'left' AND run IN (SELECT run FROM runs WHERE killed)
    AND NOT EXISTS (SELECT 1 FROM tracks later
        WHERE later.place = tracks.place AND later.run > tracks.run AND later.state = 'done')
"""
"""A killed run has put a track in its place, and could not say so any more."""


class Ledger:
    """One run's place in the ledger; a `Watcher`. Use it as a context manager.

    Args:
        out: The output folder.
        staging: The name of the run's folder there, whose lock shows that the run lives.
        command: The command line, without secrets.
        tracks: What there is to do.
        estimate: What it was expected to take.
        budget_usd: What it may cost.

    Raises:
        LedgerError: it cannot be kept.
    """

    def __init__(
        self,
        out: Path,
        staging: str,
        command: str,
        tracks: Sequence[Track],
        estimate: Estimate | None = None,
        budget_usd: float | None = None,
    ) -> None:
        self._db = open_ledger(out, make=True)
        self._steps: SimpleQueue[tuple[str, Sequence[Any]] | None] = SimpleQueue()
        self._stages: dict[int, str] = {}
        self.trouble: str | None = None
        """Why it could not be kept to the end."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._close_killed(out)
            row = self._db.execute(
                "INSERT INTO runs (command, staging, began, estimate_seconds, estimate_usd,"
                " budget_usd) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    *(command, staging, time.time()),
                    *((estimate.seconds, estimate.usd) if estimate else (None, None)),
                    budget_usd,
                ],
            )
            self.run = int(row.lastrowid or 0)
            self._db.executemany(
                "INSERT OR IGNORE INTO tracks (run, place, name, preset, state)"
                " VALUES (?, ?, ?, ?, ?)",
                [(self.run, t.place, t.name, t.wanted.preset, WAITING) for t in tracks],
            )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._db.close()
            raise LedgerError(f"{out / LEDGER} cannot be written ({error})") from error
        self._writer = threading.Thread(target=self._write, name="ledger")

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._steps.put(None)
        self._writer.join()
        self._db.close()

    def _close_killed(self, out: Path) -> None:
        for row in self._db.execute("SELECT * FROM runs WHERE ended IS NULL").fetchall():
            if is_live(out / row["staging"]):
                continue
            seen = self._db.execute(_LAST_SEEN, [row["run"]]).fetchone()[0]
            self._db.execute(
                "UPDATE runs SET killed = 1, ended = ? WHERE run = ?",
                [max(seen, row["began"]), row["run"]],
            )
            self._db.execute(
                "UPDATE tracks SET state = ? WHERE run = ? AND state = ?",
                [End.LEFT, row["run"], WAITING],
            )

    def joined(self, endpoint: Endpoint) -> None:
        """A worker gets tracks from now on."""
        facts = (endpoint.cloud, endpoint.gpu, endpoint.region, endpoint.instance_id)
        self._put(
            "INSERT INTO workers (run, slot, cloud, gpu, region, instance_id, usd_per_hour, joined)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET gone = NULL, aside = NULL",
            [self.run, endpoint.slot, *facts, endpoint.usd_per_hour, time.time()],
        )

    def aside(self, slot: str, reason: str) -> None:
        """A worker gets none any more."""
        self._put(
            "UPDATE workers SET gone = ?, aside = ? WHERE run = ? AND slot = ?",
            [time.time(), reason, self.run, slot],
        )

    def moved(self, trip: Trip) -> None:
        """Write down when a stage begins."""
        if self._stages.get(trip.number) == trip.stage or trip.stage not in STAGES:
            return
        if trip.number not in self._stages:
            span = trip.span or (None, None)
            self._put(
                "INSERT INTO trips (run, trip, place, slot, start_frame, end_frame)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [self.run, trip.number, trip.track.place, trip.slot, *span],
            )
        self._stages[trip.number] = trip.stage
        self._put(_BEGINS[trip.stage], [time.time(), self.run, trip.number])

    def over(self, trip: Trip, error: str | None) -> None:
        """A trip has ended."""
        self._stages.pop(trip.number, None)
        span = trip.brings or (None, None)
        self._put(
            "UPDATE trips SET ended = ?, bore = ?, seconds = ?, usd = ?, sent = ?, got = ?,"
            " error = ?, start_frame = ?, end_frame = ? WHERE run = ? AND trip = ?",
            [
                *(time.time(), trip.bore, trip.took, trip.usd, trip.sent, trip.got, error, *span),
                *(self.run, trip.number),
            ],
        )

    def ended(self, outcome: Outcome) -> None:
        """A track has ended."""
        place = outcome.place or f"/{outcome.name}"  # what no track has
        facts = {
            "name": outcome.name,
            "state": outcome.end.value,
            "length": outcome.length,
            "worker": outcome.worker,
            "tries": outcome.tries,
            "seconds": outcome.seconds,
            "realtime": outcome.realtime,
            "usd": outcome.usd,
            "sent": outcome.sent,
            "got": outcome.got,
            "error": outcome.error,
            "ended": time.time(),
        }
        self._put(
            f"INSERT INTO tracks (run, place, {', '.join(facts)})"  # noqa: S608 (our own names)
            f" VALUES (?, ?, {', '.join('?' * len(facts))}) ON CONFLICT DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in facts),
            [self.run, place, *facts.values()],
        )
        if outcome.end is End.THERE:
            self._put(_WAS_DONE, [place])

    def said(self, message: str) -> None:
        """What is only for people."""

    def finished(self, report: Report) -> None:
        """The run has ended."""
        self._put(
            "UPDATE runs SET ended = ?, exit_code = ?, error = ? WHERE run = ?",
            [time.time(), report.exit_code, report.error, self.run],
        )

    def _put(self, step: str, values: Sequence[Any]) -> None:
        self._steps.put((step, values))

    def _write(self) -> None:
        while (step := self._steps.get()) is not None:
            steps, last = [step], False
            while not self._steps.empty() and not last:
                more = self._steps.get()
                last = more is None
                steps += [more] if more is not None else []
            if self.trouble is None:
                self._commit(steps)
            if last:
                return

    def _commit(self, steps: Iterable[tuple[str, Sequence[Any]]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for step, values in steps:
                self._db.execute(step, values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self.trouble = f"the ledger is not complete: {error}"
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
