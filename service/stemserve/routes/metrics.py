"""Numbers for whoever watches many workers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric

from stemserve.lease import doing
from stemserve.routes.parts import Parts, Worker
from stemserve.running.metrics import gauge, gauges
from stemserve.schema import JobStatus

router = APIRouter(tags=["worker"])


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Counters, since the worker was started, and gauges of what is now, in "
            "the text format of Prometheus",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def get_metrics(worker: Worker) -> PlainTextResponse:
    """What the worker has done and is at, for Prometheus."""
    return PlainTextResponse(worker.runner.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def present(worker: Parts) -> Iterable[Metric]:
    """What is now."""
    store, lease, gpu = worker.store, worker.lease, worker.runner.gpu
    yield gauges(
        "jobs",
        "Jobs that are kept, by status",
        "status",
        {status: store.count(status) for status in JobStatus},
    )
    yield gauge("queue_limit", "Jobs that may wait", worker.settings.queue_limit)
    yield gauge("ready", "Whether a job would start now", worker.runner.unready is None)
    yield gauge("followers", "Callers that follow a job", worker.runner.changes.count)
    yield gauge(
        "idle_seconds", "Since there was last anything to do", lease.idle_seconds(doing(store))
    )
    ends_at = lease.ends_at()
    if ends_at is not None:
        left = (ends_at - datetime.now(UTC)).total_seconds()
        yield gauge("lease_seconds", "Till the worker ends its machine, if nothing renews it", left)
    if gpu is not None:
        yield gauge("vram_total_bytes", "Memory of the GPU", gpu.vram_total)
        yield gauge("vram_used_bytes", "Of that, what is in use, as last told", gpu.vram_used)
