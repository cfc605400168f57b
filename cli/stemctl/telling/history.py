"""The runs that a ledger tells of, read for people, programs and the page with the timeline."""

from __future__ import annotations

import shlex
import sqlite3
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemctl.asked.naming import printable, without_secrets
from stemctl.dispatch.report import End
from stemctl.errors import InputError
from stemctl.places.staging import is_live
from stemctl.telling.tables import LedgerError, open_ledger

Row = dict[str, Any]


def command_line() -> str:
    """This program's command line; of URLs without what may be secret in them."""
    words = [without_secrets(word) for word in sys.argv[1:]]
    return printable(shlex.join(["stemctl", *words]))


@dataclass(frozen=True)
class Run:
    """One run, with all that is known of it: rows as the ledger has them, and what they sum to."""

    about: Row
    totals: Row
    tracks: list[Row]
    workers: list[Row]
    trips: list[Row]

    def as_json(self) -> Row:
        """The run as one JSON object."""
        parts = {"tracks": self.tracks, "workers": self.workers, "trips": self.trips}
        return {"run": self.about, "totals": self.totals, **parts}


def read_runs(out: Path) -> list[Row]:
    """All runs into an output folder, the newest first, each with its totals.

    Raises:
        InputError: there is no ledger, or it cannot be read.
    """
    with _reading(out) as db:
        rows = db.execute("SELECT * FROM runs ORDER BY run DESC").fetchall()
        return [_about(out, row) | _totals(db, row) for row in rows]


def read_run(out: Path, number: int | None) -> Run:
    """One run; None: the newest.

    Raises:
        InputError: there is no such run, or no ledger, or it cannot be read.
    """
    with _reading(out) as db:
        row = None
        with suppress(OverflowError):  # SQLite's numbers end somewhere
            row = db.execute(
                "SELECT * FROM runs WHERE run = coalesce(?, (SELECT max(run) FROM runs))", [number]
            ).fetchone()
        if row is None:
            raise InputError(f"there is no run {number} in {out}: see `stemctl runs`")
        tables = {
            table: [_plain(one) for one in db.execute(query, [row["run"]])]
            for table, query in _TABLES.items()
        }
        return Run(_about(out, row), _totals(db, row), **tables)


_TABLES = {
    "tracks": "SELECT * FROM tracks WHERE run = ? ORDER BY rowid",
    "workers": "SELECT * FROM workers WHERE run = ? ORDER BY rowid",
    "trips": "SELECT * FROM trips WHERE run = ? ORDER BY trip",
}


class _reading:  # noqa: N801 (reads as a verb where it is used)
    def __init__(self, out: Path) -> None:
        self._out = out

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._db = open_ledger(self._out)
        except LedgerError as error:
            raise InputError(str(error)) from error
        self._db.execute("BEGIN")
        return self._db

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise InputError(f"the ledger in {self._out} cannot be read ({error})") from error


def _plain(row: sqlite3.Row) -> Row:
    return {name: row[name] for name in row.keys() if name != "run"}  # noqa: SIM118 (a Row)


def _about(out: Path, row: sqlite3.Row) -> Row:
    """The run without what is the program's own, and with the word for how it stands."""
    about = dict(row)
    staging, killed = about.pop("staging"), about.pop("killed")
    if killed:
        state = "killed"
    elif about["ended"] is not None:
        state = "ended"
    else:
        state = "running" if is_live(out / staging) else "killed"
    return about | {"state": state}


def _totals(db: sqlite3.Connection, row: sqlite3.Row) -> Row:
    run = row["run"]
    counts = Counter(
        {
            one["state"]: one["n"]
            for one in db.execute(
                "SELECT state, count(*) n FROM tracks WHERE run = ? GROUP BY state", [run]
            )
        }
    )
    done = db.execute(
        "SELECT sum(length) length, sum(seconds) seconds, sum(max(tries - 1, 0)) retries"
        " FROM tracks WHERE run = ? AND state = ?",
        [run, End.DONE],
    ).fetchone()
    trips = db.execute(
        "SELECT sum(usd) usd, sum(seconds) seconds, sum(sent) sent, sum(got) got,"
        " max(coalesce(ended, downloading, computing, waiting, uploading, reading)) seen"
        " FROM trips WHERE run = ?",
        [run],
    ).fetchone()
    until = row["ended"] or trips["seen"] or row["began"]
    rented = db.execute(
        "SELECT sum((coalesce(gone, ?) - joined) / 3600 * usd_per_hour) usd"
        " FROM workers WHERE run = ?",
        [until, run],
    ).fetchone()
    wall = until - row["began"]
    return {
        "tracks": counts.total(),
        **{end.value: counts[end.value] for end in End},
        "waiting": counts["waiting"],
        "seconds": wall,
        "sound_seconds": done["length"] or 0.0,
        "worker_seconds": trips["seconds"] or 0.0,
        "realtime": (done["length"] or 0.0) / wall if wall > 0 else None,
        "retries": done["retries"] or 0,
        "usd": trips["usd"] or 0.0,
        "usd_rented": rented["usd"] or 0.0,
        "sent": trips["sent"] or 0,
        "got": trips["got"] or 0,
        "estimate_seconds": row["estimate_seconds"],
        "estimate_usd": row["estimate_usd"],
    }
