"""The ledger's file: its tables, its version, and how it is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

LEDGER = ".stemctl.sqlite"
VERSION = 1
BUSY_S = 30.0
"""How long a reader, or another run, is waited for."""

SCHEMA = """
CREATE TABLE runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    command TEXT NOT NULL,
    staging TEXT NOT NULL,
    began REAL NOT NULL,
    ended REAL,
    killed INTEGER NOT NULL DEFAULT 0,
    exit_code INTEGER,
    error TEXT,
    estimate_seconds REAL,
    estimate_usd REAL,
    budget_usd REAL
);
CREATE TABLE workers (
    run INTEGER NOT NULL,
    slot TEXT NOT NULL,
    cloud TEXT NOT NULL,
    gpu TEXT NOT NULL,
    region TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    usd_per_hour REAL NOT NULL,
    joined REAL NOT NULL,
    gone REAL,
    aside TEXT,
    PRIMARY KEY (run, slot)
);
CREATE TABLE tracks (
    run INTEGER NOT NULL,
    place TEXT NOT NULL,
    name TEXT NOT NULL,
    preset TEXT,
    length REAL,
    state TEXT NOT NULL,
    worker TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    seconds REAL,
    realtime REAL,
    usd REAL,
    sent INTEGER NOT NULL DEFAULT 0,
    got INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    ended REAL,
    PRIMARY KEY (run, place)
);
CREATE INDEX tracks_by_place ON tracks (place);
CREATE TABLE trips (
    run INTEGER NOT NULL,
    trip INTEGER NOT NULL,
    place TEXT NOT NULL,
    slot TEXT NOT NULL,
    start_frame INTEGER,
    end_frame INTEGER,
    reading REAL,
    uploading REAL,
    waiting REAL,
    computing REAL,
    downloading REAL,
    ended REAL,
    bore INTEGER,
    seconds REAL,
    usd REAL,
    sent INTEGER,
    got INTEGER,
    error TEXT,
    PRIMARY KEY (run, trip)
);
"""
"""Times are seconds since 1970. A track's state is ``waiting`` until it is one of `End`; a trip has
the times at which its stages began."""


class LedgerError(Exception):
    """The ledger cannot be used; the message says why."""


def open_ledger(out: Path, *, make: bool = False) -> sqlite3.Connection:
    """A connection to the ledger of an output folder.

    Raises:
        LedgerError: there is none, or it cannot be read or written.
    """
    path = out / LEDGER
    if not make and not path.is_file():
        raise LedgerError(f"no run was made into {out}: name its folder with --out")
    try:
        db = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
        db.row_factory = sqlite3.Row
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and make:
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            db.close()
            raise LedgerError(f"{path} is of version {version}, not {VERSION}, of stemctl's ledger")
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be used ({error})") from error
    return db
