"""What a worker has done and is at, in numbers for Prometheus.

Counters begin at 0 with each start of the worker. Labels have few values, whatever callers send and
whatever the separation says.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stemserve import errors
from stemserve.jobs.job import StoredJob
from stemserve.jobs.store import CANCELLED
from stemserve.schema import JobStatus, Tasks, TaskState

STAGES = ("input", *Tasks.model_fields)
"""What a running job is at: its input is fetched, or one of the template's tasks runs."""

OTHER = "other"
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
_REMEMBERED = 64


def _types(kind: type[errors.StemserveError]) -> set[str]:
    return {kind.type}.union(*map(_types, kind.__subclasses__()))


ERROR_TYPES = _types(errors.StemserveError) | {CANCELLED, "internal", "input-unreadable"}


class Metrics:
    """The numbers of one worker. All but `text` is for the event loop's thread alone."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._registry = CollectorRegistry()
        self._at: tuple[str, str, float] | None = None
        self._inference_s = 0.0
        self.completed = 0
        """Jobs, since the worker started."""
        self._ended: deque[Hashable] = deque(maxlen=_REMEMBERED)

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"stemserve_{name}", says, labels, registry=self._registry)

        self._jobs = counter("jobs_ended", "Jobs that are over, by how they ended", "outcome")
        self._errors = counter("job_errors", "Jobs that failed, by the type of error", "type")
        self._seconds = counter("stage_seconds", "Time that running jobs spent, by stage", "stage")
        self._sound = counter("sound_seconds", "Length of what was separated")
        self._requests = counter(
            "http_requests", "Calls that were answered", "method", "route", "status"
        )
        self._realtime = Gauge(
            "stemserve_realtime_ratio",
            "Seconds of sound for a second of separation, of the last job",
            registry=self._registry,
        )
        for stage in STAGES:
            self._seconds.labels(stage)
        for outcome in (JobStatus.COMPLETED, JobStatus.FAILED, CANCELLED):
            self._jobs.labels(outcome)

    def see(self, job: StoredJob) -> None:
        """A job has changed."""
        now = self._now()
        if self._at is not None and self._at[0] == job.job_id:
            _, stage, since = self._at
            self._seconds.labels(stage).inc(now - since)
            if stage == "inference":
                self._inference_s += now - since
        elif job.status is JobStatus.RUNNING:
            self._inference_s = 0.0
        if job.status is JobStatus.RUNNING:
            self._at = job.job_id, _stage(job.tasks), now
            return
        if job.ended_at is not None:
            self._see_end(job)
        if self._at is not None and self._at[0] == job.job_id:
            self._at = None

    def _see_end(self, job: StoredJob) -> None:
        if (end := (job.job_id, job.ended_at)) in self._ended:
            return
        self._ended.append(end)
        if job.status is JobStatus.COMPLETED:
            self.completed += 1
            self._jobs.labels(JobStatus.COMPLETED).inc()
            if self._at is not None and self._at[0] == job.job_id and self._inference_s:
                seconds = job.duration_seconds or 0.0
                self._sound.inc(seconds)
                self._realtime.set(seconds / self._inference_s)
            return
        kind = job.error_type if job.error_type in ERROR_TYPES else OTHER
        self._jobs.labels(CANCELLED if kind == CANCELLED else JobStatus.FAILED).inc()
        if kind != CANCELLED:
            self._errors.labels(kind).inc()

    def answered(self, method: str, route: str | None, status: int) -> None:
        """A call was answered; ``route``: its template, None where there is none."""
        method = method if method in METHODS else OTHER
        self._requests.labels(method, route or OTHER, str(status)).inc()

    def add(self, gauges: Callable[[], Iterable[Metric]]) -> None:
        """Ask for more each time."""

        class Asked(Collector):
            def collect(self) -> Iterable[Metric]:
                return gauges()

        self._registry.register(Asked())

    def text(self) -> bytes:
        """All of it, in Prometheus's own format."""
        return generate_latest(self._registry)


def gauge(name: str, says: str, value: float) -> Metric:
    """One number as it is now."""
    return GaugeMetricFamily(f"stemserve_{name}", says, value=value)


def gauges(name: str, says: str, label: str, values: dict[str, float]) -> Metric:
    """The same for each value of a label."""
    family = GaugeMetricFamily(f"stemserve_{name}", says, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def _stage(tasks: Tasks) -> str:
    states = tasks.model_dump()
    return next((name for name in states if states[name] == TaskState.RUNNING), STAGES[0])
