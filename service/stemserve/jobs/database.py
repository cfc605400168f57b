"""The SQLite file under the job store: one writer, and readers that do not wait for it.

What a transaction wrote is on the disk when it returns: a loss of power takes nothing back that a
caller was told. Readers have a connection of their own, for a write may wait long for a disk.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stemserve.errors import DiskFullError
from stemserve.files import DISK_FULL

_BUSY_S = 30.0
"""How long a lock of somebody who looks into the file by hand is waited for."""


class Database:
    """A file whose table ``jobs`` has all of ``columns``; those it lacks are added.

    Args:
        path: where it is, or will be.
        table: SQL that creates the table where there is none.
        columns: definitions of columns that tables of earlier versions may lack, by name.
        indices: SQL that creates the indices.

    Raises:
        sqlite3.Error: it is no database, or cannot be used.
    """

    def __init__(self, path: Path, table: str, columns: Mapping[str, str], indices: str) -> None:
        self._writer = _connect(path)
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.executescript(table)
        there = {row["name"] for row in self._writer.execute("PRAGMA table_info(jobs)")}
        for name, definition in columns.items():
            if name not in there:
                self._writer.execute(f"ALTER TABLE jobs ADD COLUMN {name} {definition}")
        self._writer.executescript(indices)
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only = ON")
        self._writing = threading.Lock()
        self._reading = threading.Lock()

    def add(self, table: str) -> None:
        """Create one more table, by SQL that does nothing where there is one."""
        with self.writing() as db:
            db.execute(table)

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        with self._reading, self._writing:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk afterwards, or nothing has happened."""
        with self._writing, _full_disk_told():
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """What has been written, as it is at one moment."""
        with self._reading, _full_disk_told():
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                if self._reader.in_transaction:
                    self._reader.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")  # what is beside a job goes with it
    return connection


@contextmanager
def _full_disk_told() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        # The write-ahead log fails with FULL; the files beside it may fail with an I/O error.
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise DiskFullError(DISK_FULL) from error
        raise
