"""When what is kept was last used, by a clock that nobody can set: the time the worker has run.

Neither a clock that jumps nor a machine that was off for a month makes anything older.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress

from stemserve.errors import DiskFullError
from stemserve.jobs.store import Store

_FINE_S = 60.0
"""Uses that lie closer together are not told apart: each costs a write to the disk."""

_USES = "CREATE TABLE IF NOT EXISTS uses (name TEXT PRIMARY KEY, used REAL NOT NULL)"
_UPTIME = """
CREATE TABLE IF NOT EXISTS uptime (one INTEGER PRIMARY KEY CHECK (one = 1), seconds REAL NOT NULL)
"""


class Uses:
    """By name, the last use. May be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._database = store.database
        self._database.add(_USES)
        self._database.add(_UPTIME)
        with self._database.reading() as db:
            row = db.execute("SELECT seconds FROM uptime").fetchone()
        self._before = float(row["seconds"]) if row else 0.0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._noted: dict[str, float] = {}

    def now(self) -> float:
        """Seconds that workers on this data have run."""
        return self._before + time.monotonic() - self._began

    def note(self, name: str) -> None:
        """It is used now."""
        now = self.now()
        with self._lock:
            if now - self._noted.get(name, -_FINE_S) < _FINE_S:
                return
            self._noted[name] = now
        with suppress(DiskFullError), self._database.writing() as db:
            db.execute(
                "INSERT INTO uses VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET used = ?2",
                [name, now],
            )

    def settle(self, names: AbstractSet[str]) -> dict[str, float]:
        """The last use of each; what is not known was used now. All others are forgotten."""
        now = self.now()
        with self._lock:
            self._noted = {name: at for name, at in self._noted.items() if now - at < _FINE_S}
            recent = dict(self._noted)
        with self._database.reading() as db:
            known = {row["name"]: row["used"] for row in db.execute("SELECT * FROM uses")}
        with suppress(DiskFullError), self._database.writing() as db:
            db.execute(
                "INSERT INTO uptime VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET seconds = ?1",
                [now],
            )
            new = [(name, now) for name in names - known.keys()]
            db.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?)", new)
            gone = [(name,) for name in known.keys() - names]
            db.executemany("DELETE FROM uses WHERE name = ?", gone)
        return {name: max(known.get(name, now), recent.get(name, 0.0)) for name in names}
