"""The emulated RunPod's GraphQL: the part of the schema that its SDK 1.12 and we speak.

graphql-core parses, validates and executes it, so a string that is not escaped, an unknown field or
a missing argument fails here as it does there. RunPod answers 200 also to what it refuses.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from graphql import GraphQLError, build_schema, graphql_sync

from tests.clouds.faults import Request
from tests.clouds.runpod import (
    COMMUNITY,
    NO_INSTANCES,
    SECURE,
    TERMINATED,
    Kind,
    Pod,
    RunpodEmulator,
)
from tests.clouds.runpod_wish import RefusalError, parse_wish

COMMON = """
  name: String, imageName: String, cloudType: CloudTypeEnum, gpuTypeId: String, gpuCount: Int
  startSsh: Boolean, startJupyter: Boolean, supportPublicIp: Boolean, volumeInGb: Int
  minVcpuCount: Int, minMemoryInGb: Int, allowedCudaVersions: [String], dataCenterId: String
  countryCode: String, dockerArgs: String, containerDiskInGb: Int, ports: String
  volumeMountPath: String, env: [EnvironmentVariableInput], minDownload: Int, minUpload: Int
  templateId: String, networkVolumeId: String, instanceId: String
"""
SCHEMA = build_schema(
    f"""
scalar Void
enum CloudTypeEnum {{ SECURE COMMUNITY ALL }}
input EnvironmentVariableInput {{ key: String!, value: String! }}
input PodFindAndDeployOnDemandInput {{ {COMMON} }}
input PodRentInterruptableInput {{ {COMMON} bidPerGpu: Float! }}
input PodFilter {{ podId: String! }}
input PodTerminateInput {{ podId: String! }}
input GpuTypeFilter {{ id: String }}
input GpuLowestPriceInput {{ gpuCount: Int!, secureCloud: Boolean, dataCenterId: String }}
type LowestPrice {{
  minimumBidPrice: Float, uninterruptablePrice: Float, stockStatus: String
}}
type GpuType {{
  id: String, displayName: String, manufacturer: String, memoryInGb: Int, cudaCores: Int
  maxGpuCount: Int, secureCloud: Boolean, communityCloud: Boolean, securePrice: Float
  communityPrice: Float, oneMonthPrice: Float, threeMonthPrice: Float, oneWeekPrice: Float
  communitySpotPrice: Float, secureSpotPrice: Float
  lowestPrice(input: GpuLowestPriceInput): LowestPrice
}}
type Machine {{ podHostId: String, gpuDisplayName: String }}
type Port {{
  ip: String, isIpPublic: Boolean, privatePort: Int, publicPort: Int, type: String
}}
type Runtime {{ uptimeInSeconds: Int, ports: [Port] }}
type Pod {{
  id: String!, name: String, imageName: String, desiredStatus: String, env: [String]
  containerDiskInGb: Int, costPerHr: Float, dockerArgs: String, dockerId: String, gpuCount: Int
  lastStatusChange: String, machineId: String, memoryInGb: Float, podType: String, port: String
  ports: String, uptimeSeconds: Int, vcpuCount: Float, volumeInGb: Float, volumeMountPath: String
  runtime: Runtime, machine: Machine
}}
type User {{ id: String, clientBalance: Float, currentSpendPerHr: Float, pods: [Pod] }}
type Query {{
  gpuTypes(input: GpuTypeFilter): [GpuType], pod(input: PodFilter!): Pod, myself: User
}}
type Mutation {{
  podFindAndDeployOnDemand(input: PodFindAndDeployOnDemandInput!): Pod
  podRentInterruptable(input: PodRentInterruptableInput!): Pod
  podTerminate(input: PodTerminateInput!): Void
}}
"""
)


def answer_graphql(cloud: RunpodEmulator, request: Request) -> dict[str, Any]:
    """The body of the answer to a query or mutation."""
    body = request.body
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise RefusalError(400, "Must provide query string.")
    result = graphql_sync(
        SCHEMA,
        body["query"],
        root_value=_Root(cloud, request),
        variable_values=body.get("variables"),
    )
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        answer["errors"] = [dict(error.formatted) for error in result.errors]
    return answer


class _Root:
    """Resolvers of queries and mutations, by the schema's names."""

    def __init__(self, cloud: RunpodEmulator, request: Request) -> None:
        self.cloud, self.request = cloud, request

    def gpuTypes(  # noqa: N802
        self,
        _info: object,
        input: dict[str, Any] | None = None,  # noqa: A002
    ) -> list[SimpleNamespace]:
        wanted = (input or {}).get("id")
        return [_gpu(kind) for kind in self.cloud.kinds if wanted in (None, kind.id)]

    def pod(self, _info: object, input: dict[str, Any]) -> SimpleNamespace | None:  # noqa: A002
        return next((p for p in self._pods() if p.id == input["podId"]), None)

    def myself(self, _info: object) -> SimpleNamespace:
        pods = self.cloud.pods()
        return SimpleNamespace(
            id="user_1",
            clientBalance=round(self.cloud.credit, 6),
            currentSpendPerHr=sum(pod.cost for pod in pods if not pod.ended),
            pods=self._pods(),
        )

    def podFindAndDeployOnDemand(  # noqa: N802
        self,
        _info: object,
        input: dict[str, Any],  # noqa: A002
    ) -> SimpleNamespace:
        return self._rent(input, None)

    def podRentInterruptable(  # noqa: N802
        self,
        _info: object,
        input: dict[str, Any],  # noqa: A002
    ) -> SimpleNamespace:
        return self._rent(input, input["bidPerGpu"])

    def podTerminate(self, _info: object, input: dict[str, Any]) -> None:  # noqa: A002, N802
        try:
            pod = self.cloud.find(input["podId"])
        except RefusalError:
            raise GraphQLError("pod not found to terminate") from None
        self.cloud.end(pod, TERMINATED, "account")

    def _pods(self) -> list[SimpleNamespace]:
        return [_pod(self.cloud, pod) for pod in self.cloud.pods()]

    def _rent(self, given: dict[str, Any], bid: float | None) -> SimpleNamespace:
        kind = given.get("cloudType") or "ALL"
        refusal = RefusalError(400, NO_INSTANCES)
        for cloud in (SECURE, COMMUNITY) if kind == "ALL" else (kind,):
            gpu: dict[str, Any] = {"id": given["gpuTypeId"], "count": given.get("gpuCount") or 1}
            if given.get("allowedCudaVersions"):
                gpu["allowedCudaVersions"] = given["allowedCudaVersions"]
            place = given.get("dataCenterId")
            wish = {
                "name": given["name"],
                "image": given["imageName"],
                "gpu": gpu,
                "cloud": cloud,
                "dataCenterIds": [place] if place else [],
                "disk": given.get("containerDiskInGb") or 10,
                "ports": [port for port in (given.get("ports") or "").split(",") if port],
                "env": {one["key"]: one["value"] for one in given.get("env") or ()},
                "args": given.get("dockerArgs") or "",
            }
            try:
                return _pod(self.cloud, self.cloud.rent(parse_wish(wish), self.request, bid=bid))
            except RefusalError as error:
                refusal = error
        raise GraphQLError(refusal.detail, extensions={"code": "RUNPOD"})


def _gpu(kind: Kind) -> SimpleNamespace:
    def lowest(_info: object, input: dict[str, Any] | None = None) -> SimpleNamespace:  # noqa: A002
        secure = (input or {}).get("secureCloud")
        clouds = [cloud for cloud in (SECURE, COMMUNITY) if secure in (None, cloud == SECURE)]
        here = [level for (cloud, _), level in kind.stock.items() if cloud in clouds]
        return SimpleNamespace(
            minimumBidPrice=kind.least_bid if here else None,
            uninterruptablePrice=kind.secure if SECURE in clouds else kind.community,
            stockStatus=here[0].title() if here else None,
        )

    return SimpleNamespace(
        id=kind.id,
        displayName=kind.name,
        manufacturer="Nvidia",
        memoryInGb=kind.memory,
        maxGpuCount=8,
        secureCloud=True,
        communityCloud=bool(kind.community),
        securePrice=kind.secure,
        communityPrice=kind.community,
        secureSpotPrice=kind.least_bid,
        communitySpotPrice=kind.least_bid,
        lowestPrice=lowest,
    )


def _pod(cloud: RunpodEmulator, pod: Pod) -> SimpleNamespace:
    status = cloud.status(pod)
    runtime = cloud.runtime(pod)
    ports = [
        SimpleNamespace(
            ip=port["ip"],
            isIpPublic=port["type"] == "tcp",
            privatePort=port["private"],
            publicPort=port["public"],
            type=port["type"],
        )
        for port in (runtime or {}).get("ports", ())
    ]
    return SimpleNamespace(
        id=pod.id,
        name=pod.name,
        imageName=pod.image,
        desiredStatus=status if pod.ended else "RUNNING",
        env=[f"{key}={value}" for key, value in pod.env.items()],
        containerDiskInGb=pod.disk,
        costPerHr=pod.cost,
        dockerArgs=pod.args,
        gpuCount=pod.count,
        machineId=pod.host,
        podType="INTERRUPTABLE" if pod.spot else "RESERVED",
        ports=",".join(pod.ports),
        uptimeSeconds=(runtime or {}).get("uptime", 0),
        runtime=runtime and SimpleNamespace(uptimeInSeconds=runtime["uptime"], ports=ports),
        machine=SimpleNamespace(podHostId=f"{pod.id}-64411eb2", gpuDisplayName=pod.kind.name),
    )
