"""Which segments of a job are on the disk: told by the separation, asked for by callers.

Samples before such a mark never change, whatever the separation does meanwhile, for it writes
behind the last one only. So they are read beside it, without a lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from stemserve.errors import NoSuchSegmentError, NotStartedError, SegmentsGoneError
from stemserve.jobs.job import StoredJob
from stemserve.jobs.store import Store
from stemserve.schema import JobStatus, Segment, Segments
from stemserve.task import PARTIAL, RESULTS, kept_in_results

_PIECE = 2**18

_TABLE = """
CREATE TABLE IF NOT EXISTS marks (
    job_id TEXT PRIMARY KEY REFERENCES jobs (job_id) ON DELETE CASCADE,
    segments TEXT NOT NULL
)
"""


class Marks:
    """The segments of each job in ``store``."""

    def __init__(self, store: Store) -> None:
        self._database = store.database
        self._database.add(_TABLE)

    def put(self, job_id: str, segments: Segments) -> None:
        """Note what is on the disk."""
        with self._database.writing() as db:
            db.execute(
                "INSERT INTO marks SELECT job_id, ?2 FROM jobs WHERE job_id = ?1"
                " ON CONFLICT (job_id) DO UPDATE SET segments = excluded.segments",
                [job_id, segments.model_dump_json()],
            )

    def share(self, earlier: str, job_id: str) -> None:
        """Note that a job has the samples of an earlier one."""
        with self._database.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO marks SELECT ?2, segments FROM marks WHERE job_id = ?1",
                [earlier, job_id],
            )

    def of(self, job: StoredJob, folder: Path) -> Segments:
        """What is on the disk of a job whose files are in ``folder``.

        Raises:
            NotStartedError: nothing is known yet.
            SegmentsGoneError: it is over, and the samples are gone.
        """
        with self._database.reading() as db:
            row = db.execute("SELECT segments FROM marks WHERE job_id = ?", [job.job_id]).fetchone()
        segments = None if row is None else Segments.model_validate_json(row["segments"])
        if segments is None or not any(_places(job, folder, segments.stems[0])):
            if job.status in (JobStatus.PENDING, JobStatus.RUNNING):
                raise NotStartedError(f"Job {job.job_id} has not begun; ask again.")
            raise SegmentsGoneError(
                f"The segments of job {job.job_id} are gone: it is {job.status}."
                " Take its results, if it has any."
            )
        return segments

    def open(self, job: StoredJob, folder: Path, index: int, stem: str) -> SegmentFile:
        """One stem of one segment; raises as `of` does, and `NoSuchSegmentError`."""
        segments = self.of(job, folder)
        if stem not in segments.stems:
            raise NoSuchSegmentError(
                f"Job {job.job_id} keeps no stem {stem}; it keeps {', '.join(segments.stems)}.",
                segments.stems,
            )
        found = next((segment for segment in segments.segments if segment.index == index), None)
        if found is None:
            raise NoSuchSegmentError(
                f"Segment {index} of job {job.job_id} is not finished, or there is none."
            )
        return SegmentFile.of(_places(job, folder, stem), segments, found)


class SegmentFile:
    """One stem of a segment as a WAV file, read out of the file that it is a part of."""

    def __init__(self, file: BinaryIO, header: bytes, size: int) -> None:
        self._file = file
        self._header = header
        self._left = size
        self._odd = size % 2
        self.size = len(header) + size + self._odd
        """Bytes of the whole."""

    @classmethod
    def of(cls, places: Iterable[Path], segments: Segments, segment: Segment) -> SegmentFile:
        """Open it, in the first of some places; raises `SegmentsGoneError`."""
        from stemserve.audio.wav import HEADER_SIZE, WavFile, header

        depth, channels = segments.sample_format, segments.channels
        frames = segment.end_frame - segment.start_frame
        start = WavFile.size(depth, channels, segment.start_frame - segments.start_frame)
        size = WavFile.size(depth, channels, frames) - HEADER_SIZE
        for path in places:
            try:
                file = path.open("rb")
            except FileNotFoundError:  # it was moved to its place among the results
                continue
            if os.fstat(file.fileno()).st_size >= start + size:
                file.seek(start)
                return cls(file, header(depth, segments.rate, channels, frames), size)
            file.close()
        raise SegmentsGoneError("The samples of this segment are gone; ask for the job.")

    def close(self) -> None:
        """Read no more of it."""
        self._file.close()

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, once."""
        with self._file as file:
            yield self._header
            while self._left and (piece := file.read(min(_PIECE, self._left))):
                self._left -= len(piece)
                yield piece
            yield bytes(self._odd)


def _places(job: StoredJob, folder: Path, stem: str) -> Iterator[Path]:
    """Where a stem's samples may be: as they grow; then on the way to the results, and there."""
    paths = [folder / PARTIAL / f"{stem}.samples"]
    if kept_in_results(job.content.format, job.content.clip):
        paths += [folder / PARTIAL / RESULTS / f"{stem}.wav", folder / f"{stem}.wav"]
    return (path for path in paths if path.is_file())
