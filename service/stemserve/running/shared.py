"""Results that a job shares with an earlier one: what was separated once is not separated again.

Two jobs of one content have the same results, whatever their ids. The files are linked, so that
each job keeps its own, for as long as that is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from stemserve.errors import StemserveError
from stemserve.files import full_disk_told, new_file, sync_folder, synced
from stemserve.jobs.job import JobContent, StoredJob
from stemserve.jobs.jobfiles import JobFiles
from stemserve.jobs.marks import Marks
from stemserve.jobs.store import Store
from stemserve.schema import SIDECAR, JobStatus, ResultFile
from stemserve.weights.files import directory

_PRECISION = "STEMSERVE_PRECISION"
_VERSION = version("stemfleet")


class SharedResults:
    """Finds results of the same content. May be called from any thread."""

    def __init__(self, store: Store, files: Callable[[str], JobFiles], marks: Marks) -> None:
        self._store = store
        self._files = files
        self._marks = marks

    def key(self, content: JobContent, input_sha256: str, how: str) -> str:
        """Of all that the results depend on. ``how``: what the separation says it runs on."""
        of_input = content.model_copy(update={"input_url": None, "input_sha256": input_sha256})
        on = [of_input.text(), _VERSION, how, os.environ.get(_PRECISION), _weights()]
        return hashlib.sha256(json.dumps(on).encode()).hexdigest()

    def complete_waiting(self, job: StoredJob, how: str) -> bool:
        """Complete a job that waits, before its turn, if there are results for it."""
        if job.status is not JobStatus.PENDING or job.input_sha256 is None:
            return False
        if self._earlier(job, job.input_sha256, how) is None or not self._store.take(job.job_id):
            return False
        if self.complete(job, job.input_sha256, how):
            return True
        self._store.put_back(job.job_id)
        return False

    def complete(self, job: StoredJob, input_sha256: str, how: str) -> bool:
        """Complete a running job if there are results for it."""
        earlier = self._earlier(job, input_sha256, how)
        if earlier is None or earlier.duration_seconds is None:
            return False
        source, target = self._files(earlier.job_id).folder, self._files(job.job_id).folder
        try:
            with full_disk_told():
                target.mkdir(parents=True, exist_ok=True)
                results = [_shared(result, source, target, job) for result in earlier.results]
                sync_folder(target)
            self._marks.share(earlier.job_id, job.job_id)
            key = self.key(job.content, input_sha256, how)
            self._files(job.job_id).log(f"the same was separated as job {earlier.job_id}")
            self._store.finish(job.job_id, results, earlier.duration_seconds, key)
            self._files(job.job_id).let_go()
        except (StemserveError, OSError):  # then it is separated
            return False
        return True

    def _earlier(self, job: StoredJob, input_sha256: str, how: str) -> StoredJob | None:
        return self._store.with_results(self.key(job.content, input_sha256, how))


def _shared(result: ResultFile, source: Path, target: Path, job: StoredJob) -> ResultFile:
    """Bring one result to another job's folder."""
    path = source / result.name
    if path.stat().st_size != result.size:
        raise OSError(f"{path} is not what it was")
    if result.name == SIDECAR:
        return _sidecar(result, path, target, job)
    with new_file(target) as (_, temporary):
        temporary.unlink()
        try:
            temporary.hardlink_to(path)
        except OSError:  # not every file system has links
            with temporary.open("wb") as copy, path.open("rb") as file:
                shutil.copyfileobj(file, copy)
                synced(copy)
        temporary.replace(target / result.name)
    return result


def _sidecar(result: ResultFile, path: Path, target: Path, job: StoredJob) -> ResultFile:
    """What tells how the others were made; the input's name in it is the job's own."""
    told = json.loads(path.read_bytes())
    told["input"]["name"] = job.input_name or job.input_sha256
    data = (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()
    with new_file(target) as (file, temporary):
        file.write(data)
        synced(file)
        temporary.replace(target / result.name)
    digest = hashlib.sha256(data).hexdigest()
    return result.model_copy(update={"size": len(data), "sha256": digest})


def _weights() -> list[tuple[str, int, int]]:
    """The files that networks are read from."""
    folder = directory()
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [(path.name, (at := path.stat()).st_size, at.st_mtime_ns) for path in files]
