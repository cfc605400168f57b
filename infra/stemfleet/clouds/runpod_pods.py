"""Pods in RunPod's words: what one is asked for with, and what one that exists says of itself."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from stemfleet.clouds.base import GpuFilter, Machine, MachineState, NoCapacityError, WorkerSpec
from stemfleet.clouds.container import PORT, environment
from stemfleet.clouds.runpod_api import Json, LostAnswerError, RunpodApi
from stemfleet.clouds.runpod_market import Ask, cuda_version, disk_gb, friendly, region

PROXY_VARIABLE = "STEMFLEET_RUNPOD_PROXY"
PROXY = "https://{pod}-{port}.proxy.runpod.net"
"""Where RunPod's proxy serves a pod's port, with a public certificate."""

CONSOLE = "https://console.runpod.io/pods"

SPOT = """
mutation rent($input: PodRentInterruptableInput!) {
  podRentInterruptable(input: $input) { id name costPerHr desiredStatus machineId }
}
"""


def ask_for_pod(api: RunpodApi, ask: Ask, want: GpuFilter, spec: WorkerSpec) -> Json:
    """A new pod, as REST v2 shows it.

    Raises:
        NoCapacityError: there is none of this kind.
        LostAnswerError: there may be one, or not.
    """
    pod = (
        _on_demand(api, ask, want, spec)
        if ask.bid_usd_per_gpu is None
        else _spot(api, ask, want, spec)
    )
    if not pod.get("id"):
        raise LostAnswerError("RunPod rented a pod and does not say which: try again")
    return pod | {"cost": pod.get("cost") or ask.usd_per_hour}


def _on_demand(api: RunpodApi, ask: Ask, want: GpuFilter, spec: WorkerSpec) -> Json:
    gpu: Json = {"id": ask.gpu, "count": want.count}
    if want.cuda is not None:
        gpu["minCudaVersion"] = cuda_version(want.cuda)
    body: Json = {
        "name": spec.label,
        "image": spec.image,
        "gpu": gpu,
        "cloud": ask.cloud,
        "disk": disk_gb(want),
        "ports": [_port(want)],
        "env": environment(spec),
    }
    if ask.data_centers:
        body["dataCenterIds"] = list(ask.data_centers)
    return api.create_pod(body)


def _spot(api: RunpodApi, ask: Ask, want: GpuFilter, spec: WorkerSpec) -> Json:
    given = {
        "name": spec.label,
        "imageName": spec.image,
        "gpuTypeId": ask.gpu,
        "gpuCount": want.count,
        "cloudType": ask.cloud,
        "bidPerGpu": ask.bid_usd_per_gpu,
        "containerDiskInGb": disk_gb(want),
        "volumeInGb": 0,
        "ports": _port(want),
        "supportPublicIp": want.direct_port,
        "startSsh": False,
        "dockerArgs": "",
        "env": [{"key": key, "value": value} for key, value in environment(spec).items()],
    }
    if ask.data_centers:
        given["dataCenterId"] = ask.data_centers[0]
    rented = api.graphql(SPOT, {"input": given}, once=True).get("podRentInterruptable")
    if rented is None:
        raise NoCapacityError("no spot machine is free")
    return {
        "id": rented.get("id"),
        "name": spec.label,
        "status": "PROVISIONING",
        "cost": rented.get("costPerHr"),
        "gpu": {"id": ask.gpu, "count": want.count},
        "ports": [_port(want)],
        "env": environment(spec),
    }


def _port(want: GpuFilter) -> str:
    return f"{PORT}/tcp" if want.direct_port else f"{PORT}/http"


def machine_of(pod: Json, host: str = "") -> Machine:
    """A pod as a machine. Reads leniently: a pod that exists must not be lost for a field."""
    status = str(pod.get("status"))
    url = _url(pod)
    if status in ("EXITED", "ERROR", "TERMINATED"):
        state = MachineState.FAILED
    elif status == "RUNNING" and url is not None and pod.get("runtime"):
        state = MachineState.RUNNING
    else:
        state = MachineState.STARTING
    waits = "" if url else "; its port is not mapped yet"
    return Machine(
        id=str(pod["id"]),
        label=str(pod.get("name") or ""),
        state=state,
        url=None if state is MachineState.FAILED else url,
        gpu=friendly(str((pod.get("gpu") or {}).get("id") or "")),
        usd_per_hour=float(pod.get("cost") or 0.0),
        region=region(pod.get("dataCenterId")),
        host=host,
        since=_since(pod.get("createdAt")),
        detail=f"pod {pod['id']} is {status.lower()}{waits}; log: {CONSOLE}",
    )


def _since(created: object) -> float | None:
    try:
        return datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return None


def _url(pod: Json) -> str | None:
    """Where its worker is or will be: through the proxy at once, directly once it is mapped."""
    if f"{PORT}/tcp" not in (pod.get("ports") or ()):
        template = os.environ.get(PROXY_VARIABLE) or PROXY
        return template.replace("{pod}", str(pod["id"])).replace("{port}", str(PORT))
    scheme = "https" if (pod.get("env") or {}).get("STEMSERVE_TLS_CERT") else "http"
    for port in (pod.get("runtime") or {}).get("ports") or ():
        if port.get("private") == PORT and port.get("type") == "tcp":
            address, public = str(port.get("ip") or "").strip(), port.get("public")
            if address and public:
                return f"{scheme}://{address}:{public}"
    return None


def worth(pod: Json) -> tuple[Any, ...]:
    """Sorts the pod to keep to the end: none that failed, rather one that runs, the oldest."""
    state = machine_of(pod).state
    rank = [MachineState.FAILED, MachineState.STARTING, MachineState.RUNNING].index(state)
    age = [-ord(c) for c in str(pod.get("createdAt") or "")]
    return rank, age, str(pod["id"])
