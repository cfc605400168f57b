"""What may be asked of the emulated RunPod: the request to make a pod, checked by its schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Version = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+$")]
Port = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,4}/(http|tcp)$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class RefusalError(Exception):
    """A request that the cloud refuses, with its status."""

    def __init__(self, status: int, detail: str, errors: list[str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, errors


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class GpuWish(_Strict):
    """CreateGpuConfig."""

    id: str
    count: int = Field(1, ge=1)
    allowedCudaVersions: list[Version] = []  # noqa: N815
    minCudaVersion: Version | None = None  # noqa: N815


class Wish(_Strict):
    """CreatePodRequest. What is not there is refused by name: `unevaluatedProperties: false`."""

    name: Text
    image: Text
    gpu: GpuWish | None = None
    cpu: dict[str, Any] | None = None
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    dataCenterIds: list[str] = []  # noqa: N815
    disk: int = Field(50, ge=1)
    env: dict[str, str] = {}
    ports: list[Port] = []
    args: str = ""
    registry: str | None = None
    mounts: dict[str, Any] = {}
    startSsh: bool = False  # noqa: N815
    startJupyter: bool = False  # noqa: N815
    globalNetworking: bool = False  # noqa: N815


def parse_wish(body: object) -> Wish:
    """A CreatePodRequest.

    Raises:
        RefusalError: 422 with every fault by name; 400 for what contradicts itself.
    """
    try:
        wish = Wish.model_validate(body)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(step) for step in one['loc']) or 'body'}: {one['msg']}"
            for one in error.errors()
        ]
        raise RefusalError(422, "Request validation failed.", faults) from None
    if (wish.gpu is None) == (wish.cpu is None):
        raise RefusalError(400, "exactly one of gpu or cpu must be set")
    if wish.gpu and wish.gpu.allowedCudaVersions and wish.gpu.minCudaVersion:
        raise RefusalError(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    if len([port for port in wish.ports if port.endswith("/http")]) > 10:
        raise RefusalError(400, "at most 10 http ports can be exposed")
    return wish
