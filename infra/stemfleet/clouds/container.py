"""What a worker in a container is told, the same on every cloud that runs its image."""

from __future__ import annotations

from stemfleet.clouds.base import WorkerSpec

PORT = 8185
"""Where a worker listens in its container."""

CERTIFICATE_VARIABLE = "STEMSERVE_TLS_CERT"
"""A container that was given it serves HTTPS."""


def environment(spec: WorkerSpec) -> dict[str, str]:
    """The worker's settings, secrets among them. The account's key is not."""
    told = {
        "STEMSERVE_HOST": "0.0.0.0",  # noqa: S104 - the container's, behind a token
        "STEMSERVE_PORT": str(PORT),
        "STEMSERVE_LABEL": spec.label,
        "STEMSERVE_PRESET": spec.preset,
        "STEMSERVE_TOKEN": spec.token,
    }
    if spec.certificate is not None:
        told[CERTIFICATE_VARIABLE] = spec.certificate.certificate
        told["STEMSERVE_TLS_KEY"] = spec.certificate.key
    if spec.idle_minutes is not None:
        told["STEMSERVE_IDLE_MINUTES"] = f"{spec.idle_minutes:g}"
    if spec.lease_hours is not None:
        told["STEMSERVE_LEASE_HOURS"] = f"{spec.lease_hours:g}"
    return told
