"""The stack's configuration, checked whole before anything is declared.

Names are those of the YAML file (camelCase), as an error has to name them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from stemfleet.clouds.label import GROUP_NAME
from stemfleet.clouds.offers import RENTED
from stemfleet.clouds.registry import CLOUDS, LOCAL
from stemfleet.faults import faults, nearest

IDLE_MINUTES = 15.0
LEASE_HOURS = 12.0
"""After these a rented machine's worker ends it, unless the group says otherwise; 0 is never."""


class ConfigError(Exception):
    """The configuration cannot be used. One line for each key that is wrong."""


def _whole(value: object) -> object:
    """2 for 2.0: YAML and JSON on the way may make a float of a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Limit = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, strip_whitespace=True)]
Names = Annotated[list[Name], Field(min_length=1, max_length=100)]
Preset = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Gpu(_Checked):
    """What a group asks of its machines: `GpuFilter`, in the words of the configuration.

    What is left out may be anything, but for what `RENTED` asks for instead.
    """

    names: Names | None = None
    count: Annotated[Whole, Field(ge=1, le=16)] = 1
    vramGb: Annotated[float, Field(gt=0, le=1000)] | None = None  # noqa: N815
    maxUsdPerHour: Positive  # noqa: N815
    reliability: Annotated[float, Field(ge=0, le=1)] | None = None
    verified: bool | None = None
    regions: Names | None = None
    notRegions: Names | None = None  # noqa: N815
    inetDownMbps: Annotated[float, Field(gt=0, le=100_000)] | None = None  # noqa: N815
    diskGb: Annotated[float, Field(ge=10, le=10_000)] | None = None  # noqa: N815
    cuda: Annotated[float, Field(ge=11, lt=100)] | None = None
    spot: bool = False
    bidUsdPerHour: Positive | None = None  # noqa: N815
    directPort: bool = False  # noqa: N815

    @field_validator("notRegions")
    @classmethod
    def _some_region_is_left(
        cls, excluded: list[str] | None, info: ValidationInfo
    ) -> list[str] | None:
        if both := {*(excluded or ())} & {*(info.data.get("regions") or ())}:
            raise ValueError(f"{', '.join(sorted(both))} is among `regions` as well")
        return excluded

    @field_validator("bidUsdPerHour")
    @classmethod
    def _bid_can_win(cls, bid: float | None, info: ValidationInfo) -> float | None:
        cap = info.data.get("maxUsdPerHour")
        if bid is not None and not info.data.get("spot", True):
            raise ValueError("a bid is for an interruptible machine: set `spot: true` as well")
        if bid is not None and cap is not None and bid > cap:
            raise ValueError(f"a bid of {bid:g} $/h is above maxUsdPerHour, {cap:g}")
        return bid


class Group(_Checked):
    """Workers of one kind."""

    name: Annotated[str, StringConstraints(pattern=rf"^{GROUP_NAME}$", max_length=40)]
    cloud: str
    count: Annotated[Whole, Field(ge=1, le=1000)]
    preset: Preset = "center"
    image: Annotated[Name | None, Field(validate_default=True)] = None
    gpu: Annotated[Gpu | None, Field(validate_default=True)] = None
    minRealtime: Positive | None = None  # noqa: N815
    idleMinutes: Limit | None = None  # noqa: N815
    leaseHours: Limit | None = None  # noqa: N815

    @property
    def rented(self) -> bool:
        """Whether its machines cost anything."""
        return self.cloud != LOCAL

    @property
    def usd_per_hour(self) -> float:
        """What all its machines cost at most: each is rented at the cap or below."""
        return self.count * self.gpu.maxUsdPerHour if self.gpu else 0.0

    @property
    def want(self) -> dict[str, Any]:
        """What is asked of its machines, under the names of the configuration."""
        if not self.rented:
            return {}
        usual = {to_camel(name): value for name, value in asdict(RENTED).items() if value}
        return usual | (self.gpu.model_dump(exclude_defaults=True) if self.gpu else {})

    @property
    def idle_minutes(self) -> float | None:
        """A worker ends its machine when it was idle for so long; None: never for that."""
        return self._limit(self.idleMinutes, IDLE_MINUTES)

    @property
    def lease_hours(self) -> float | None:
        """A worker ends its machine when its lease was not renewed for so long; None: never."""
        return self._limit(self.leaseHours, LEASE_HOURS)

    def _limit(self, given: float | None, default: float) -> float | None:
        if given is None:
            return default if self.rented else None
        return given or None

    @field_validator("cloud")
    @classmethod
    def _known_cloud(cls, cloud: str) -> str:
        if cloud not in CLOUDS:
            raise ValueError(f"there is no cloud {cloud!r}{nearest(cloud, list(CLOUDS))}")
        return cloud

    @field_validator("image")
    @classmethod
    def _rented_machines_run_one(cls, image: str | None, info: ValidationInfo) -> str | None:
        built = info.context and info.context.get("built")
        if image is None and not built and info.data.get("cloud", LOCAL) != LOCAL:
            raise ValueError(
                "this key is missing: a rented machine runs an image that holds the worker, "
                "as `image: registry/owner/name:tag`"
            )
        return image

    @field_validator("gpu")
    @classmethod
    def _rented_machines_have_a_cap(cls, gpu: Gpu | None, info: ValidationInfo) -> Gpu | None:
        if gpu is None and info.data.get("cloud", LOCAL) != LOCAL:
            raise ValueError(
                "this key is missing: say at least what a machine may cost, "
                "as `gpu: {maxUsdPerHour: 0.5}`"
            )
        return gpu

    @model_validator(mode="after")
    def _local_is_no_market(self) -> Group:
        if not self.rented and (self.image or self.gpu):
            raise ValueError(
                "a worker on this machine runs without an image and on what GPU there is: "
                "remove `image` and `gpu`"
            )
        return self


_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")


class BuiltImage(_Checked):
    """The image that `pulumi up` builds and pushes, for the groups that name none."""

    build: bool = False
    repository: Annotated[str | None, Field(validate_default=True)] = None
    presets: Annotated[list[Preset], Field(max_length=100)] = ["ensemble"]
    licence: Literal["any", "granted"] = "any"

    @field_validator("repository")
    @classmethod
    def _can_be_pushed_to(cls, repository: str | None, info: ValidationInfo) -> str | None:
        if repository is None and info.data.get("build"):
            raise ValueError("this key is missing: say where to push, as `ghcr.io/you/stemserve`")
        if repository is not None and not _REPOSITORY.fullmatch(repository):
            raise ValueError(
                f"{repository!r} is no place to push to: name a registry and what is in it, in "
                "lower case and without a tag, as `ghcr.io/you/stemserve`"
            )
        return repository


class FleetConfig(_Checked):
    """All that a stack says of its fleet."""

    groups: Annotated[list[Group], Field(min_length=1)]
    image: BuiltImage = BuiltImage()
    maxUsdPerHour: Annotated[Positive, Field(validate_default=True)] = 5.0  # noqa: N815
    readyTimeoutSeconds: Annotated[Whole, Field(ge=10, le=7200)] = 900  # noqa: N815

    @field_validator("groups")
    @classmethod
    def _names_differ(cls, groups: list[Group]) -> list[Group]:
        counts = Counter(group.name for group in groups)
        if twice := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"more than one group is named {', '.join(map(repr, twice))}")
        return groups

    @field_validator("maxUsdPerHour")
    @classmethod
    def _holds_the_worst_case(cls, limit: float, info: ValidationInfo) -> float:
        groups: list[Group] = info.data.get("groups", [])
        worst = sum(group.usd_per_hour for group in groups)
        if worst > limit * (1 + 1e-9):
            parts = ", ".join(
                f"{group.name}: {group.count} × {group.gpu.maxUsdPerHour:g}"
                for group in groups
                if group.gpu
            )
            raise ValueError(
                f"the fleet may cost up to {worst:g} $/h ({parts}), above the stack's limit of "
                f"{limit:g} $/h: lower a count or a cap, or raise the limit with "
                f"`pulumi config set maxUsdPerHour {worst:g}`"
            )
        return limit


def parse_config(values: dict[str, Any], namespace: str = "stemfleet") -> FleetConfig:
    """The checked configuration of a stack, from its values by key (without the namespace).

    Raises:
        ConfigError: every key that is wrong, each on a line of its own.
    """
    image = values.get("image")
    built = isinstance(image, dict) and image.get("build") is True
    try:
        return FleetConfig.model_validate(values, context={"built": built})
    except ValidationError as error:
        lines = list(faults(error, FleetConfig, namespace))
    raise ConfigError("\n".join(lines))


def parse_values(texts: dict[str, str], namespace: str = "stemfleet") -> dict[str, Any]:
    """Values by key from the engine's texts: JSON where it is JSON, else the text itself."""
    values: dict[str, Any] = {}
    for key, text in texts.items():
        space, _, name = key.partition(":")
        if space == namespace:
            try:
                values[name] = json.loads(text)
            except ValueError:
                values[name] = text
    return values
