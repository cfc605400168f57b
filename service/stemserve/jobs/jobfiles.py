"""The folder of a job: its results, and beside them the template's progress.txt and demucs.log."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stemserve.files import write_whole
from stemserve.jobs.job import StoredJob
from stemserve.logs import without_secrets
from stemserve.schema import JobState, JobStatus, Progress
from stemserve.task import PARTIAL

PROGRESS = "progress.txt"
LOG = "demucs.log"
LOG_LIMIT = 8 * 2**20
"""Bytes after which a job's log takes no more lines."""

STATES = {
    JobStatus.PENDING: JobState.IDLE,
    JobStatus.RUNNING: JobState.DEMUCS,
    JobStatus.COMPLETED: JobState.COMPLETED,
    JobStatus.FAILED: JobState.ERROR,
}


@dataclass(frozen=True)
class JobFiles:
    """The files of one job in ``folder``, which is made when the first is written."""

    folder: Path

    def show(self, job: StoredJob) -> None:
        """Replace progress.txt by the job's present state."""
        self.write_progress(
            Progress(
                state=STATES[job.status],
                tasks=job.tasks,
                timestamp=datetime.now(UTC),
                elapsed_seconds=job.elapsed_seconds,
                details=job.details,
                error=job.error,
            )
        )

    def write_progress(self, progress: Progress) -> None:
        """Replace progress.txt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / PROGRESS, progress.model_dump_json(indent=2).encode())

    def log(self, line: str) -> None:
        """Append a line with its time to demucs.log, without what is secret in URLs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as file:
            if file.tell() < LOG_LIMIT:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                file.write(f"{now} {without_secrets(line)}\n".encode(errors="backslashreplace"))

    def read_log(self, offset: int, limit: int = 2**20) -> tuple[str, int]:
        """The log from a byte offset on, at most ``limit`` bytes, and the offset to go on from."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, 2)
                start = file.seek(min(offset, size))
                data = file.read(limit)
        except FileNotFoundError:
            return "", 0
        whole = data[: len(data) - _cut_character(data)]
        return whole.decode(errors="replace"), start + len(whole)

    def clear(self) -> None:
        """Remove what a separation left, finished or not; not the log and progress.txt."""
        for path in self.folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (PROGRESS, LOG):
                path.unlink()

    def hold(self, inputs: Iterable[Path]) -> None:
        """Keep inputs for as long as the job needs them, whatever becomes of them elsewhere."""
        self._held.mkdir(parents=True, exist_ok=True)
        for path in inputs:
            with suppress(OSError):  # it is there, or the disk knows no links
                (self._held / path.name).hardlink_to(path)

    def held(self, sha256: str) -> Path | None:
        """An input that is held."""
        path = self._held / sha256
        return path if path.is_file() else None

    def let_go(self) -> None:
        """The job is completed: hold no inputs any more, and nothing to go on with."""
        shutil.rmtree(self._held, ignore_errors=True)
        shutil.rmtree(self.folder / PARTIAL, ignore_errors=True)

    def delete(self) -> None:
        """Remove the folder, if there is one."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    @property
    def _held(self) -> Path:
        return self.folder / "inputs"

    @property
    def _log(self) -> Path:
        return self.folder / LOG


def _cut_character(data: bytes) -> int:
    """How many bytes at the end are the beginning of a UTF-8 character cut in two."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return back if length > back else 0
    return 0
