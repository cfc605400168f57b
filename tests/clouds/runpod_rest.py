"""The emulated RunPod's REST v2: one function a call, and who may make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.clouds.faults import Request
from tests.clouds.runpod import (
    ACTIONS,
    EXITED,
    SECURE,
    TERMINATED,
    Kind,
    Pod,
    RunpodEmulator,
    version,
)
from tests.clouds.runpod_graphql import answer_graphql
from tests.clouds.runpod_wish import RefusalError, parse_wish

Answer = tuple[int, dict[str, Any] | None]
LEVELS = ("NONE", "LOW", "MEDIUM", "HIGH")
SCOPES = {"product", "count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion"}


def answer(
    cloud: RunpodEmulator, endpoint: str, found: str | None, request: Request, who: str | None
) -> Answer:
    """Status and body. ``who``: ``account``, the id of the pod whose own key it is, or None."""
    if request.path.startswith("/v1/"):
        raise RefusalError(410, "REST API v1 has been retired. Use https://api.runpod.io/v2.")
    if who is None:
        raise RefusalError(401, "missing or invalid credentials")
    if not endpoint:
        raise RefusalError(404, "resource not found")
    if who != "account" and (endpoint not in ("get", "delete", "action") or found != who):
        raise RefusalError(403, "access denied")
    if endpoint.startswith("graphql"):
        return 200, answer_graphql(cloud, request)
    if endpoint == "create":
        return 201, shown(cloud, cloud.rent(parse_wish(request.body), request))
    if endpoint == "list":
        _only(request.query, {"cursor", "includeClusterPods"})
        return 200, _page(cloud, request.query.get("cursor"))
    if endpoint == "catalog":
        return 200, _catalog(cloud, request.query, found)
    pod = cloud.find(found or "")
    if endpoint == "get":
        return 200, shown(cloud, pod)
    wanted = "terminate" if endpoint == "delete" else str((request.body or {}).get("action"))
    return _act(cloud, pod, wanted, who)


def _act(cloud: RunpodEmulator, pod: Pod, action: str, who: str) -> Answer:
    if action == "terminate" and who != "account" and not cloud.pod_key_terminates:
        raise RefusalError(403, "access denied")
    if action not in ACTIONS[cloud.status(pod)]:
        raise RefusalError(409, f"cannot {action} a pod that is {cloud.status(pod)}")
    if action == "terminate":
        cloud.end(pod, TERMINATED, "account" if who == "account" else "itself")
        return 204, None
    if action == "stop":
        cloud.end(pod, EXITED, who)
    else:
        cloud.reset(pod)
    return 200, shown(cloud, pod)


def shown(cloud: RunpodEmulator, pod: Pod) -> dict[str, Any]:
    """A pod as REST v2 shows it."""
    status = cloud.status(pod)
    return {
        "id": pod.id,
        "name": pod.name,
        "status": status,
        "actions": ACTIONS[status],
        "image": pod.image,
        "args": pod.args,
        "disk": pod.disk,
        "mounts": {},
        "ports": pod.ports,
        "env": pod.env,
        "registry": None,
        "gpu": {"id": pod.kind.id, "count": pod.count},
        "cloud": pod.cloud,
        "dataCenterId": pod.data_center,
        "cudaVersion": pod.kind.cuda[-1],
        "ssh": {"proxy": None, "direct": None},
        "template": None,
        "cost": 0.0 if pod.ended else pod.cost,
        "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": cloud.runtime(pod),
        "createdAt": pod.made.isoformat().replace("+00:00", "Z"),
        "startedAt": None,
    }


def _page(cloud: RunpodEmulator, cursor: str | None) -> dict[str, Any]:
    pods = [shown(cloud, pod) for pod in cloud.pods(listing=True)]
    if cloud.page_size is None:
        return {"pods": pods}
    if cursor is not None and not cursor.startswith("after-"):
        raise RefusalError(400, "malformed cursor")
    ids = [pod["id"] for pod in pods]
    after = cursor.removeprefix("after-") if cursor else ""
    begin = ids.index(after) + 1 if after in ids else 0
    page = pods[begin : begin + cloud.page_size]
    further = begin + cloud.page_size < len(pods)
    following = f"after-{page[-1]['id']}" if further else None
    return {"pods": page, "pagination": {"nextCursor": following, "hasNextPage": further}}


def _catalog(cloud: RunpodEmulator, query: Mapping[str, str], one: str | None) -> dict[str, Any]:
    _only(query, {"include", *SCOPES})
    with_stock = query.get("include") == "AVAILABILITY"
    if with_stock != ("product" in query) or (not with_stock and SCOPES & set(query)):
        raise RefusalError(400, "include=AVAILABILITY and product need each other")
    rows = [_row(kind) | (_stock(kind, query) if with_stock else {}) for kind in cloud.kinds]
    if one is None:
        return {"gpus": rows}
    for row in rows:
        if row["id"] == one:
            return row
    raise RefusalError(404, f"gpu type {one} not found")


def _row(kind: Kind) -> dict[str, Any]:
    return {
        "id": kind.id,
        "name": kind.name,
        "pool": None,
        "manufacturer": "NVIDIA",
        "memory": kind.memory,
        "secure": any(cloud == SECURE for cloud, _ in kind.stock),
        "community": any(cloud != SECURE for cloud, _ in kind.stock),
        "price": {"secure": kind.secure, "community": kind.community},
        "maxCount": {"secure": 8, "community": 4},
    }


def _stock(kind: Kind, query: Mapping[str, str]) -> dict[str, Any]:
    floor = query.get("minCudaVersion", "0.0")
    met = any(version(one) >= version(floor) for one in kind.cuda)
    wanted = query.get("cloud", SECURE)
    places = {p: level for (cloud, p), level in kind.stock.items() if cloud == wanted and met}
    best = max(places.values(), key=LEVELS.index, default="NONE")
    if best == "NONE":
        return {"availability": best}
    listed = [{"id": p, "name": p, "availability": level} for p, level in places.items()]
    return {"availability": best, "dataCenters": listed}


def _only(query: Mapping[str, str], known: set[str]) -> None:
    if unknown := set(query) - known:
        raise RefusalError(400, f"unknown query parameter {', '.join(sorted(unknown))}")
