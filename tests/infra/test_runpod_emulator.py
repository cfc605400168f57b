"""The emulated RunPod itself: it speaks to RunPod's own SDK, and refuses what RunPod refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.clouds.faults import Fault
from tests.clouds.runpod import RunpodEmulator
from tests.infra.runpods import TOKEN, put
from tests.service.worker import eventually

BODY: dict[str, Any] = {
    "name": "a",
    "image": "ghcr.io/x",
    "gpu": {"id": "NVIDIA GeForce RTX 4090"},
    "ports": ["8185/http"],
    "env": {"STEMSERVE_TOKEN": TOKEN},
}


@pytest.fixture
def api(runpod: RunpodEmulator) -> Iterator[httpx.Client]:
    """A client with the account's key."""
    headers = {"Authorization": f"Bearer {runpod.key}"}
    with httpx.Client(base_url=runpod.url, headers=headers, trust_env=False) as client:
        yield client


def graphql(api: httpx.Client, text: str) -> dict[str, Any]:
    """The answer to a request as the SDK sends it: no variables, no operation name."""
    answer = api.post("/graphql", json={"query": text})
    assert answer.status_code == 200
    return dict(answer.json())


# The texts that runpod 1.12.0 sends, of which every selected key is indexed by it.
SDK_GPU = """
    query GpuTypes { gpuTypes(input: {id: "NVIDIA GeForce RTX 4090"}) { maxGpuCount id displayName
      manufacturer memoryInGb cudaCores secureCloud communityCloud securePrice communityPrice
      oneMonthPrice threeMonthPrice oneWeekPrice communitySpotPrice secureSpotPrice
      lowestPrice(input: {gpuCount: 1}) { minimumBidPrice uninterruptablePrice } } }
"""
SDK_CREATE = """
    mutation { podFindAndDeployOnDemand( input: { name: "fleet-a-0", imageName: "ghcr.io/x:1",
      cloudType: SECURE, startSsh: true, gpuTypeId: "NVIDIA GeForce RTX 4090",
      supportPublicIp: true, gpuCount: 1, volumeInGb: 0, minVcpuCount: 4, minMemoryInGb: 16,
      allowedCudaVersions: ["12.8", "12.6"], dataCenterId: null, dockerArgs: "--port 8185",
      containerDiskInGb: 40, ports: "8185/http,22/tcp", volumeMountPath: "/runpod-volume",
      env: [{ key: "A", value: "1" }, { key: "B", value: "x y" }], minDownload: 200 }
    ) { id imageName env machineId machine { podHostId } } }
"""
SDK_POD = """id containerDiskInGb costPerHr desiredStatus dockerArgs dockerId env gpuCount imageName
      lastStatusChange machineId memoryInGb name podType port ports uptimeSeconds vcpuCount
      volumeInGb volumeMountPath
      runtime { ports{ ip isIpPublic privatePort publicPort type } } machine { gpuDisplayName }"""


def test_the_sdk_of_runpod_is_understood(runpod: RunpodEmulator, api: httpx.Client) -> None:
    (gpu,) = graphql(api, SDK_GPU)["data"]["gpuTypes"]
    assert gpu["lowestPrice"] == {"minimumBidPrice": 0.2, "uninterruptablePrice": 0.69}
    assert len(graphql(api, "query GpuTypes { gpuTypes { id displayName memoryInGb } }")) == 1

    made = graphql(api, SDK_CREATE)["data"]["podFindAndDeployOnDemand"]
    assert made["env"] == ["A=1", "B=x y"]
    runpod.clock.advance(60)
    (listed,) = graphql(api, f"query myPods {{ myself {{ pods {{ {SDK_POD} }} }} }}")["data"][
        "myself"
    ]["pods"]
    assert (listed["id"], listed["name"]) == (made["id"], "fleet-a-0")
    assert [port["privatePort"] for port in listed["runtime"]["ports"]] == [8185, 22]

    end = f'mutation {{ podTerminate(input: {{ podId: "{made["id"]}" }}) }}'
    assert graphql(api, end) == {"data": {"podTerminate": None}}
    gone = f'query pod {{ pod(input: {{podId: "{made["id"]}"}}) {{ {SDK_POD} }} }}'
    assert graphql(api, gone) == {"data": {"pod": None}}
    assert graphql(api, end)["errors"][0]["message"] == "pod not found to terminate"
    assert runpod.ledger.alive() == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"1"', '"o"ne"', "Syntax Error"),
        ("cloudType: SECURE", 'cloudType: "SECURE"', "CloudTypeEnum"),
        ("gpuCount: 1", "gpuCounts: 1", "gpuCounts"),
        ("machineId machine", "machineIds machine", "machineIds"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA L4", "no longer any instances available"),
    ],
)
def test_graphql_tells_what_is_wrong_with_status_200(
    runpod: RunpodEmulator, api: httpx.Client, old: str, new: str, says: str
) -> None:
    assert says in graphql(api, SDK_CREATE.replace(old, new))["errors"][0]["message"]
    assert runpod.ledger.contracts() == []


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"gpuTypeIds": ["x"]}, 422, "gpuTypeIds"),
        ({"interruptible": True}, 422, "interruptible"),
        ({"gpu": {"id": "NVIDIA L4", "minRamPerGpu": 16}}, 422, "gpu.minRamPerGpu"),
        ({"gpu": {"count": 1}}, 422, "gpu.id"),
        ({"gpu": {"id": "NVIDIA L4", "count": 0}}, 422, "gpu.count"),
        ({"gpu": {"id": "NVIDIA L4", "minCudaVersion": "12"}}, 422, "minCudaVersion"),
        ({"name": ""}, 422, "name"),
        ({"image": None}, 422, "image"),
        ({"disk": "40"}, 422, "disk"),
        ({"env": {"A": 1}}, 422, "env.A"),
        ({"env": [{"key": "A", "value": "1"}]}, 422, "env"),
        ({"ports": "8185/http"}, 422, "ports"),
        ({"ports": ["8185"]}, 422, "ports.0"),
        ({"cloud": "ALL"}, 422, "cloud"),
        ({"ports": [f"{n}/http" for n in range(8000, 8011)]}, 400, "at most 10"),
        ({"cpu": {"id": "cpu3c", "vcpuCount": 2}}, 400, "exactly one"),
        ({"gpu": {"id": "no such GPU"}}, 404, "not found"),
        ({"gpu": {"id": "NVIDIA L4"}}, 400, "no longer any instances"),
        ({"dataCenterIds": ["EU-SE-1"]}, 400, "no longer any instances"),
        ({"env": {"A": "x" * 102_400}}, 413, "102400"),
    ],
)
def test_what_runpod_would_refuse_is_refused(
    runpod: RunpodEmulator, api: httpx.Client, change: dict[str, Any], status: int, says: str
) -> None:
    answer = api.post("/v2/pods", json={**BODY, **change})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert says in "; ".join([told["detail"], *told.get("errors", [])])
    assert runpod.ledger.contracts() == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/pods", 410),
        ("GET", "/v2/pods?limit=3", 400),
        ("GET", "/v2/pods?cursor=x", 200),
        ("GET", "/v2/pods/none", 404),
        ("DELETE", "/v2/pods/none", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/catalog/gpus?include=AVAILABILITY", 400),
        ("GET", "/v2/catalog/gpus?count=2", 400),
        ("GET", "/v2/catalog/gpus?include=AVAILABILITY&product=POD&count=2", 200),
        ("GET", "/v2/catalog/gpus/NVIDIA%20L4", 200),
        ("GET", "/v2/catalog/gpus/NVIDIA%20L5", 404),
    ],
)
def test_paths_and_queries(
    runpod: RunpodEmulator, api: httpx.Client, method: str, path: str, status: int
) -> None:
    assert api.request(method, path).status_code == status
    assert api.request(method, path, headers={"Authorization": "Bearer x"}).status_code in (
        401,
        410,
    )
    assert runpod.ledger.calls()[0].status == status


def test_a_pod_passes_through_its_states_and_allows_their_actions(
    runpod: RunpodEmulator, api: httpx.Client
) -> None:
    runpod.clock.rate = 0
    made = api.post("/v2/pods", json=BODY)
    assert made.status_code == 201
    path = f"/v2/pods/{made.json()['id']}"

    def act(action: str) -> int:
        return api.post(f"{path}/action", json={"action": action}).status_code

    seen = [made.json()["status"]]
    for _ in range(3):
        runpod.clock.advance(4)
        seen.append(api.get(path).json()["status"])
    assert seen == ["PROVISIONING", "STARTING", "RUNNING", "RUNNING"]
    assert api.get(path).json()["runtime"]["ports"][0]["private"] == 8185
    assert act("start") == 409
    assert act("stop") == 200
    stopped = api.get(path).json()
    assert (stopped["status"], stopped["cost"], stopped["runtime"]) == ("EXITED", 0, None)
    assert act("stop") == 409
    assert act("start") == 200
    assert act("terminate") == 204
    assert api.get(path).status_code == 404
    assert api.delete(path).status_code == 404
    assert api.get("/v2/pods").json() == {"pods": []}


def test_a_pods_own_key_reaches_that_pod_alone(runpod: RunpodEmulator, api: httpx.Client) -> None:
    one, other = put(runpod, "one"), put(runpod, "other")
    own = {"Authorization": f"Bearer {runpod.find(one).key}"}
    assert api.get(f"/v2/pods/{one}", headers=own).status_code == 200
    assert api.get(f"/v2/pods/{other}", headers=own).status_code == 403
    assert api.get("/v2/pods", headers=own).status_code == 403
    assert api.post("/v2/pods", json=BODY, headers=own).status_code == 403
    assert api.delete(f"/v2/pods/{other}", headers=own).status_code == 403
    runpod.pod_key_terminates = False
    assert api.delete(f"/v2/pods/{one}", headers=own).status_code == 403
    runpod.pod_key_terminates = True
    assert api.delete(f"/v2/pods/{one}", headers=own).status_code == 204
    assert [c.ended_by for c in runpod.ledger.contracts()] == ["itself", ""]


def test_limits_are_told_with_every_answer_and_kept(
    runpod: RunpodEmulator, api: httpx.Client
) -> None:
    runpod.clock.rate = 0
    runpod.limits = {"minute": (2, 60), "hour": (100, 3600)}
    told = [api.get("/v2/pods").headers["RateLimit"] for _ in range(2)]
    assert [re.findall(r'"(\w+)";r=(\d+)', one) for one in told] == [
        [("minute", "1"), ("hour", "99")],
        [("minute", "0"), ("hour", "98")],
    ]
    refused = api.get("/v2/pods")
    assert refused.status_code == 429
    runpod.clock.advance(int(refused.headers["Retry-After"]))
    assert api.get("/v2/pods").status_code == 200


def test_the_proxy_leads_to_the_pods_worker_once_it_is_up(
    runpod: RunpodEmulator, api: httpx.Client
) -> None:
    runpod.boot_s = (1e9, 0, 0)
    id_ = api.post("/v2/pods", json=BODY).json()["id"]
    path = f"/proxy/{id_}/8185/ready"
    token = {"Authorization": f"Bearer {TOKEN}"}
    assert api.get(path, headers=token).status_code == 502
    runpod.boot_s = (0, 0, 0)
    answer = eventually(lambda: api.get(path, headers=token), lambda answer: answer.is_success)
    assert answer.json() == {"ready": True}
    assert api.get(path).status_code == 401
    assert api.get(path.replace("8185", "22"), headers=token).status_code == 502
    assert api.get(path.replace(id_, "none"), headers=token).status_code == 404
    runpod.faults.arm("proxy", Fault(524, "A timeout occurred"))
    assert api.get(path, headers=token).status_code == 524


def test_credit_is_used_up_by_the_hour_and_stops_what_runs(
    runpod: RunpodEmulator, api: httpx.Client
) -> None:
    runpod.clock.rate = 0
    runpod.credit = 1.0
    id_ = api.post("/v2/pods", json=BODY).json()["id"]
    runpod.clock.advance(3600)
    balance = graphql(api, "query { myself { clientBalance currentSpendPerHr } }")["data"]["myself"]
    assert balance["clientBalance"] == pytest.approx(1 - 0.69)
    assert balance["currentSpendPerHr"] == 0.69
    assert runpod.ledger.contracts()[0].usd == pytest.approx(0.69)
    runpod.clock.advance(3600)
    assert api.get(f"/v2/pods/{id_}").json()["status"] == "EXITED"
    assert api.post("/v2/pods", json=BODY).status_code == 402
