"""What Vast.ai's rows mean: an offer of its market, or the state and address of a machine.

Rows are JSON objects as the API gives them. Fields may be missing, null, or hold values that no
document names; none of that is an error here.
"""

from __future__ import annotations

import math
import re
from typing import Any

from stemfleet.clouds.base import Machine, MachineState, Offer
from stemfleet.clouds.container import CERTIFICATE_VARIABLE, PORT

Row = dict[str, Any]


BROKEN = re.compile(
    r"oci runtime|error response from daemon|pull access denied"
    r"|manifest (?:for \S+ )?(?:unknown|not found)|repository does not exist"
    r"|invalid reference format|unauthorized|no space left"
    r"|failed to (?:pull|create|start|resolve)|no such image",
    re.IGNORECASE,
)
"""In a status message: the container will never run."""

ENDED = ("stopped", "exited", "frozen")
"""Actual states that do not become `running` by themselves, and are paid for all the same."""

LOST = ("offline", "unknown")
"""The host does not answer. It may come back: how long to wait is for the caller to decide."""


def offer(row: Row, *, bid: float | None, spot: bool) -> Offer | None:
    """An offer of the market; None if it does not tell its price.

    A spot offer's price is the bid, or the least that is accepted.
    """
    price = _number(row.get("min_bid" if spot else "dph_total"))
    if price is None or price <= 0:
        return None
    memory = _number(row.get("gpu_ram"))
    ports = _number(row.get("direct_port_count"))
    reliability = row.get("reliability2", row.get("reliability"))
    return Offer(
        id=str(row["id"]),
        gpu=str(row.get("gpu_name", "")),
        usd_per_hour=max(price, bid or 0.0) if spot else price,
        region=str(row.get("geolocation") or ""),
        gpu_count=int(_number(row.get("num_gpus")) or 0),
        vram_gb=None if memory is None else memory / 1000,
        host=str(row.get("machine_id") or ""),
        reliability=_number(reliability),
        verified=_verified(row),
        inet_down_mbps=_number(row.get("inet_down")),
        disk_gb=_number(row.get("disk_space")),
        cuda=_number(row.get("cuda_max_good")),
        direct_port=None if ports is None else ports >= 1,
        spot=spot,
    )


def _verified(row: Row) -> bool | None:
    if isinstance(row.get("verified"), bool):
        return bool(row["verified"])
    return row["verification"] == "verified" if row.get("verification") else None


def machine(row: Row) -> Machine:
    """A machine of the account."""
    state, detail = _state(row)
    return Machine(
        id=str(row["id"]),
        label=str(row.get("label") or "").strip(),
        state=state,
        url=_url(row) if state is MachineState.RUNNING else None,
        gpu=str(row.get("gpu_name") or ""),
        usd_per_hour=_number(row.get("dph_total")) or 0.0,
        region=str(row.get("geolocation") or ""),
        detail=f"{detail} (machine {row['id']} on Vast.ai)",
        host=str(row.get("machine_id") or ""),
        since=_number(row.get("start_date")),
    )


def _state(row: Row) -> tuple[MachineState, str]:
    actual = row.get("actual_status")
    message = " ".join(str(row.get("status_msg") or "").split())[:300]
    told = f"{actual or 'being prepared'}{f': {message}' if message else ''}"
    if actual in ENDED or _is_meant_to_stop(row):
        why = "it was outbid" if row.get("is_bid") else "it has stopped"
        return MachineState.FAILED, f"{why}; {told}"
    if actual == "running":
        if _url(row) is None:
            return MachineState.STARTING, f"{told}; its port {PORT} is not mapped yet"
        return MachineState.RUNNING, told
    if actual in LOST:
        return MachineState.STARTING, f"its host does not answer; {told}"
    if BROKEN.search(message):
        return MachineState.FAILED, f"its container does not start; {told}"
    return MachineState.STARTING, told


def _is_meant_to_stop(row: Row) -> bool:
    """Outbid, out of credit or failed: in one of two shapes every wish reads `stopped`."""
    return all(
        row.get(name) == "stopped" for name in ("intended_status", "cur_state", "next_state")
    )


def _url(row: Row) -> str | None:
    """Where the worker's port is mapped to; it changes when the container starts again."""
    address = str(row.get("public_ipaddr") or "").strip()
    ports = row.get("ports")
    mapped = ports.get(f"{PORT}/tcp") if isinstance(ports, dict) else None
    if not address or not mapped:
        return None
    try:
        port = int(mapped[0]["HostPort"])
    except (LookupError, TypeError, ValueError):
        return None
    host = f"[{address}]" if ":" in address else address
    return f"{'https' if _has_certificate(row) else 'http'}://{host}:{port}"


def _has_certificate(row: Row) -> bool:
    given = row.get("extra_env")
    if isinstance(given, list):
        given = [pair[0] for pair in given if isinstance(pair, list) and pair]
    return isinstance(given, list | dict) and CERTIFICATE_VARIABLE in given


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
