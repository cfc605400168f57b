"""An example of every body, for the OpenAPI document; the tests hold them against the schema."""

from __future__ import annotations

from typing import Any

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_JOB = "4f1d7a90c3be42d8a6a50b0c2f7e91d3"
_TIME = "2026-01-31T12:00:00Z"

_TASKS = {"models": "done", "cutting": "done", "inference": "running", "conversion": "no_work"}
_DETAILS = {"completed_segments": 1, "total_segments": 2, "percent": 61.5}
_RANGE = {"start_seconds": 60, "end_seconds": 90}
_RESULT = {"name": "vocals.flac", "stem": "vocals", "size": 4718592, "sha256": _SHA256}
_LICENCE = {
    "file": "955717e8-8726e21a.th",
    "granted": False,
    "name": "none stated",
    "says": "published beside code under MIT; nothing is said of the weights",
}
_PRESET = {
    "name": "htdemucs",
    "description": "Hybrid Transformer Demucs, one network",
    "stems": ["vocals", "drums", "bass", "other"],
    "available": True,
    "licences": [_LICENCE],
    "quality": {"vocals": 8.24, "drums": 10.88},
    "cost": 1.0,
}
_ROW = {
    "job_id": _JOB,
    "status": "completed",
    "created_at": _TIME,
    "completed_at": "2026-01-31T12:01:30Z",
    "preset": "htdemucs",
    "input_name": "song.flac",
}

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "Problem": [
        {
            "type": "no-such-job",
            "title": "Not Found",
            "status": 404,
            "detail": "There is no job of that id.",
        }
    ],
    "Range": [_RANGE],
    "JobRequest": [
        {"input_sha256": _SHA256, "preset": "htdemucs", "stems": ["vocals"], "format": "flac"},
        {"input_url": "https://example.com/song.mp3", "all_stems": True, "range": _RANGE},
    ],
    "JobCreated": [{"job_id": _JOB, "status": "pending", "message": "The job waits for its turn."}],
    "Job": [
        {
            "job_id": _JOB,
            "status": "running",
            "state": "demucs",
            "tasks": _TASKS,
            "details": _DETAILS,
            "elapsed_seconds": 41.2,
            "preset": "htdemucs",
            "input_name": "song.flac",
            "input_sha256": _SHA256,
            "duration_seconds": 214.7,
            "results": [],
        },
    ],
    "Jobs": [{"jobs": [_ROW], "total": 1}],
    "Segments": [
        {
            "rate": 44100,
            "channels": 2,
            "sample_format": "16",
            "stems": ["vocals"],
            "start_frame": 0,
            "end_frame": 26460000,
            "segments": [{"index": 0, "start_frame": 0, "end_frame": 13230000}],
        }
    ],
    "Part": [{"start_frame": 0, "end_frame": 13230000, "stem": "vocals", "input_sha256": _SHA256}],
    "Logs": [{"logs": "fetching the input\n", "offset": 19, "status": "running"}],
    "Deleted": [{"status": "deleted", "job_id": _JOB}],
    "ResultFile": [_RESULT],
    "DeliveryRequest": [
        {
            "file": "vocals.flac",
            "url": "https://bucket.s3.example.com/vocals.flac?X-Amz-Signature=…",
        }
    ],
    "SegmentDeliveryRequest": [
        {"url": "https://bucket.s3.example.com/parts/0/vocals.wav?X-Amz-Signature=…"}
    ],
    "Delivery": [
        {"file": "vocals.flac", "status": "sending", "sent": 1048576, "size": 4718592},
    ],
    "Health": [{"status": "healthy", "timestamp": _TIME}],
    "Ready": [{"ready": False, "reason": "the separation is starting"}],
    "Preset": [_PRESET],
    "Status": [
        {
            "status": "running",
            "models_ready": True,
            "active_jobs": 1,
            "completed_jobs": 12,
            "uptime_seconds": 3600.5,
            "pending_jobs": 2,
            "queue_limit": 16,
            "version": "0.1.0",
            "device": "cuda",
            "default_preset": "htdemucs",
            "presets": [_PRESET],
            "idle_seconds": 0,
            "lease_ends_at": None,
        }
    ],
    "Lease": [{"lease_ends_at": "2026-01-31T14:00:00Z"}],
    "Input": [{"sha256": _SHA256, "size": 31457280}],
    "FetchRequest": [
        {"input_url": "https://bucket.s3.example.com/parts/0/vocals.wav?X-Amz-Signature=…"}
    ],
    "Fetch": [{"sha256": _SHA256, "status": "fetching", "size": 1048576}],
}
"""By the name of the model in `stemserve.schema`."""
