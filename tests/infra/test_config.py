"""A stack's configuration: what is taken, and how each wrong key is named."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from stemfleet.clouds import offers
from stemfleet.clouds.base import GpuFilter
from stemfleet.config import ConfigError, FleetConfig, Gpu, parse_config, parse_values
from stemfleet.slot import gpu_filter

ROOT = Path(__file__).parents[2]
GROUP = {"name": "dev", "cloud": "local", "count": 2}
IMAGE = "ghcr.io/example/worker:1"
CAP = {"maxUsdPerHour": 0.5}
RENTED = {"name": "gpu", "cloud": "vast", "count": 2, "image": IMAGE, "gpu": CAP}


def asking(**gpu: object) -> dict[str, Any]:
    """A fleet of one rented group with this filter."""
    return {"groups": [{**RENTED, "gpu": CAP | gpu}]}


names = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,5}){0,3}", fullmatch=True)
groups = st.builds(
    lambda name, count, preset: {"name": name, "cloud": "local", "count": count, "preset": preset},
    names,
    st.integers(1, 1000),
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True),
)
fleets = st.lists(groups, min_size=1, max_size=5, unique_by=lambda group: str(group["name"]))


def problems(values: dict[str, Any]) -> list[str]:
    """The lines of the error that a configuration gives."""
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    return str(caught.value).splitlines()


@given(fleets)
def test_a_fleet_is_taken_as_it_is_written(declared: list[dict[str, Any]]) -> None:
    config = parse_config({"groups": declared})
    assert [(g.name, g.count, g.preset) for g in config.groups] == [
        (g["name"], g["count"], g["preset"]) for g in declared
    ]


@given(fleets)
def test_whole_numbers_may_come_as_floats(declared: list[dict[str, Any]]) -> None:
    floats = [{**group, "count": float(group["count"])} for group in declared]
    assert parse_config({"groups": floats}) == parse_config({"groups": declared})


@given(fleets, st.data())
def test_an_unknown_key_is_named_wherever_it_is(
    declared: list[dict[str, Any]], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(declared) - 1))
    declared[at]["cuont"] = 1
    (line,) = problems({"groups": declared})
    assert line.startswith(f"stemfleet:groups[{at}].cuont: ")
    assert "did you mean 'count'?" in line


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True, None, [], 1001])
def test_a_count_that_is_none_is_refused_by_name(count: object) -> None:
    (line,) = problems({"groups": [GROUP, {**GROUP, "name": "b", "count": count}]})
    assert line.startswith("stemfleet:groups[1].count: ")


@pytest.mark.parametrize("count", [0, -1])
def test_having_no_workers_is_told_how(count: int) -> None:
    (line,) = problems({"groups": [{**GROUP, "count": count}]})
    assert "remove the group" in line
    assert "pulumi destroy" in line


@pytest.mark.parametrize(
    ("values", "key", "says"),
    [
        ({}, "stemfleet:groups", "missing"),
        ({"groups": []}, "stemfleet:groups", "no group"),
        ({"groups": "dev"}, "stemfleet:groups", "list"),
        ({"groups": ["dev"]}, "stemfleet:groups[0]", "name, cloud, count"),
        ({"groups": [GROUP, GROUP]}, "stemfleet:groups", "'dev'"),
        ({"groups": [GROUP], "readyTimeoutSecond": 5}, "stemfleet:readyTimeoutSecond", "Seconds'?"),
        ({"groups": [GROUP], "readyTimeoutSeconds": 5}, "stemfleet:readyTimeoutSeconds", "10"),
        ({"groups": [{**GROUP, "cloud": "locl"}]}, "stemfleet:groups[0].cloud", "'local'?"),
        ({"groups": [{**GROUP, "name": "a.b"}]}, "stemfleet:groups[0].name", "'a.b'"),
        ({"groups": [{**GROUP, "name": "../b"}]}, "stemfleet:groups[0].name", "'../b'"),
        ({"groups": [{**GROUP, "name": "b\n"}]}, "stemfleet:groups[0].name", "no name"),
        ({"groups": [{**GROUP, "preset": 5}]}, "stemfleet:groups[0].preset", "string"),
        ({"groups": [{**GROUP, "image": "x"}]}, "stemfleet:groups[0]", "remove `image`"),
        ({"groups": [{**GROUP, "gpu": CAP}]}, "stemfleet:groups[0]", "remove `image` and `gpu`"),
        (asking(vramGB=8), "stemfleet:groups[0].gpu.vramGB", "vramGb"),
        (asking(count=0), "stemfleet:groups[0].gpu.count", "1"),
        ({"groups": [{**GROUP, "idleMinutes": -1}]}, "stemfleet:groups[0].idleMinutes", "-1"),
        ({"groups": [{**GROUP, "leaseHours": "12h"}]}, "stemfleet:groups[0].leaseHours", "12h"),
        ({"groups": [{**RENTED, "image": None}]}, "stemfleet:groups[0].image", "missing"),
        ({"groups": [{**RENTED, "gpu": None}]}, "stemfleet:groups[0].gpu", "maxUsdPerHour: 0.5"),
        ({"groups": [{**RENTED, "gpu": {}}]}, "stemfleet:groups[0].gpu.maxUsdPerHour", "missing"),
        (asking(vramGb=24_576), "stemfleet:groups[0].gpu.vramGb", "GB of one GPU"),
        (asking(reliability=97), "stemfleet:groups[0].gpu.reliability", "0.97"),
        (asking(regions="SE"), "stemfleet:groups[0].gpu.regions", "list"),
        (asking(regions=["SE"], notRegions=["SE"]), "stemfleet:groups[0].gpu.notRegions", "SE"),
        (asking(diskGb=2), "stemfleet:groups[0].gpu.diskGb", "10 (GB)"),
        (asking(cuda=124), "stemfleet:groups[0].gpu.cuda", "12.4"),
        (asking(verified="yes"), "stemfleet:groups[0].gpu.verified", "boolean"),
        (asking(bidUsdPerHour=0.2), "stemfleet:groups[0].gpu.bidUsdPerHour", "spot: true"),
        (
            asking(spot=True, bidUsdPerHour=0.6, maxUsdPerHour=0.5),
            "stemfleet:groups[0].gpu.bidUsdPerHour",
            "above maxUsdPerHour",
        ),
        (asking(maxUsdPerHour=-0.5), "stemfleet:groups[0].gpu.maxUsdPerHour", "(USD), not -0.5"),
        ({"groups": [GROUP], "maxUsdPerHour": "5 USD"}, "stemfleet:maxUsdPerHour", "number"),
        ({"groups": [GROUP], "maxUsdPerHour": 0}, "stemfleet:maxUsdPerHour", "greater than 0"),
        (
            {"groups": [RENTED, {**RENTED, "name": "b", "count": 3}], "maxUsdPerHour": 2.4},
            "stemfleet:maxUsdPerHour",
            "up to 2.5 $/h (gpu: 2 × 0.5, b: 3 × 0.5), above the stack's limit of 2.4 $/h",
        ),
    ],
)
def test_each_wrong_value_is_one_line_with_its_key(
    values: dict[str, Any], key: str, says: str
) -> None:
    (line,) = problems(values)
    assert line.startswith(f"{key}: ")
    assert says in line


@pytest.mark.parametrize(
    ("cloud", "given", "limits"),
    [
        ("local", {}, (None, None)),
        ("vast", {}, (15.0, 12.0)),
        ("runpod", {"idleMinutes": 30, "leaseHours": 0.5}, (30.0, 0.5)),
        ("vast", {"idleMinutes": 0, "leaseHours": 0}, (None, None)),
        ("local", {"idleMinutes": 5}, (5.0, None)),
    ],
)
def test_rented_workers_end_themselves_unless_told_otherwise(
    cloud: str, given: dict[str, float], limits: tuple[float | None, float | None]
) -> None:
    base = GROUP if cloud == "local" else RENTED
    (group,) = parse_config({"groups": [{**base, "cloud": cloud, **given}]}).groups
    assert (group.idle_minutes, group.lease_hours) == limits


def on_the_wire(want: dict[str, Any]) -> dict[str, Any]:
    """As a provider gets it: numbers are floats, JSON has no tuples."""
    back: dict[str, Any] = json.loads(json.dumps(want), parse_int=float)
    return back


def test_every_condition_of_a_group_reaches_the_clouds_as_it_was_said() -> None:
    said = {
        "names": ["RTX 4090", "H100 SXM"], "count": 2, "vramGb": 24, "maxUsdPerHour": 0.8,
        "reliability": 0.9, "verified": False, "regions": ["SE"], "notRegions": ["US"],
        "inetDownMbps": 500, "diskGb": 80, "cuda": 12.4, "spot": True, "bidUsdPerHour": 0.3,
        "directPort": True,
    }  # fmt: skip
    (group,) = parse_config(asking(**said)).groups
    assert gpu_filter(on_the_wire(group.want)) == GpuFilter(
        names=("RTX 4090", "H100 SXM"), count=2, vram_gb=24, max_usd_per_hour=0.8,
        reliability=0.9, verified=False, regions=("SE",), not_regions=("US",),
        inet_down_mbps=500, disk_gb=80, cuda=12.4, spot=True, bid_usd_per_hour=0.3,
        direct_port=True,
    )  # fmt: skip
    assert len(said) == len(fields(GpuFilter)) == len(Gpu.model_fields)


def test_what_a_rented_group_does_not_say_is_asked_for_sensibly() -> None:
    (group,) = parse_config({"groups": [RENTED]}).groups
    usual = replace(offers.RENTED, max_usd_per_hour=0.5)
    assert gpu_filter(on_the_wire(group.want)) == usual
    (group,) = parse_config(asking(vramGb=8, names=["RTX 4060 Ti"])).groups
    want = gpu_filter(group.want)
    assert want == replace(usual, vram_gb=8, names=("RTX 4060 Ti",))
    assert parse_config({"groups": [GROUP]}).groups[0].want == {}


def test_all_that_is_wrong_is_said_at_once() -> None:
    lines = problems({"groups": [{**GROUP, "count": 0}, {"name": "B", "cloud": "local"}]})
    assert [line.split(": ")[0] for line in lines] == [
        "stemfleet:groups[0].count",
        "stemfleet:groups[1].name",
        "stemfleet:groups[1].count",
    ]


def test_the_engine_texts_become_values_of_this_namespace_alone() -> None:
    texts = {
        "stemfleet:groups": '[{"name": "dev"}]',
        "stemfleet:readyTimeoutSeconds": "60",
        "stemfleet:note": "a text, not JSON",
        "aws:region": "eu",
    }
    assert parse_values(texts) == {
        "groups": [{"name": "dev"}],
        "readyTimeoutSeconds": 60,
        "note": "a text, not JSON",
    }


def test_the_fleets_of_the_readme_can_be_declared() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "infra/README.md").read_text(), re.DOTALL)
    first, mixed, *_ = (block for block in blocks if "cloud:" in block)
    written = yaml.safe_load(first)["config"]
    values = {key.removeprefix("stemfleet:"): value for key, value in written.items()}
    assert [group.cloud for group in parse_config(values).groups] == ["vast"]
    both = parse_config({**values, "groups": yaml.safe_load(mixed)})
    assert [group.cloud for group in both.groups] == ["vast", "runpod"]


def test_the_dev_stack_and_the_schema_agree_with_the_program() -> None:
    dev = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())["config"]
    values = {key.removeprefix("stemfleet:"): value for key, value in dev.items()}
    config = parse_config(values)
    assert sum(group.count for group in config.groups) == 2
    assert {group.cloud for group in config.groups} == {"local"}

    schema = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]
    assert set(schema) == set(FleetConfig.model_fields)
    assert all(entry["description"] for entry in schema.values())
    default = FleetConfig.model_fields["readyTimeoutSeconds"].default
    assert schema["readyTimeoutSeconds"]["default"] == default
    limit = parse_values({"stemfleet:maxUsdPerHour": schema["maxUsdPerHour"]["default"]})
    assert limit == {"maxUsdPerHour": FleetConfig.model_fields["maxUsdPerHour"].default}
