"""Choosing among offers: a filter means what it says, and the choice is the cheapest work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemfleet.clouds.base import GpuFilter, NoCapacityError, Offer
from stemfleet.clouds.offers import SPEEDS, choose, cost, sold_gb, speed, unmet

OFFER = Offer(
    id="1",
    gpu="RTX 4090",
    usd_per_hour=0.4,
    region="Sweden, SE",
    vram_gb=24.564,
    host="m1",
    reliability=0.99,
    verified=True,
    inet_down_mbps=800,
    disk_gb=200,
    cuda=12.8,
    direct_port=True,
)

SMALL = st.floats(0.01, 8, allow_nan=False)
offers = st.builds(
    Offer,
    id=st.uuids().map(str),
    gpu=st.sampled_from([*SPEEDS, "GTX 970"]),
    usd_per_hour=SMALL,
    region=st.sampled_from(["Sweden, SE", "Texas, US", "EU-RO-1", ""]),
    gpu_count=st.integers(1, 2),
    vram_gb=st.none() | st.floats(8, 96),
    host=st.sampled_from(["", "a", "b", "c"]),
    reliability=st.none() | st.floats(0.9, 1),
    verified=st.none() | st.booleans(),
    inet_down_mbps=st.none() | st.floats(10, 2000),
    disk_gb=st.none() | st.floats(10, 500),
    cuda=st.none() | st.floats(11, 13),
    direct_port=st.none() | st.booleans(),
    spot=st.booleans(),
)
filters = st.builds(
    GpuFilter,
    names=st.sampled_from([(), ("rtx_4090",), ("RTX 3090", "NVIDIA L4")]),
    count=st.integers(1, 2),
    vram_gb=st.none() | st.sampled_from([8.0, 24.0, 80.0]),
    max_usd_per_hour=st.none() | SMALL,
    reliability=st.none() | st.floats(0.9, 1),
    verified=st.none() | st.booleans(),
    regions=st.sampled_from([(), ("SE",), ("EU",)]),
    not_regions=st.sampled_from([(), ("US",)]),
    inet_down_mbps=st.none() | st.floats(10, 2000),
    disk_gb=st.none() | st.floats(10, 500),
    cuda=st.none() | st.floats(11, 13),
    spot=st.booleans(),
    direct_port=st.booleans(),
)
hosts = st.frozensets(st.sampled_from(["a", "b"]))


@given(st.lists(offers, max_size=12), filters, hosts)
def test_what_is_chosen_meets_the_filter_the_cheapest_work_first(
    market: list[Offer], want: GpuFilter, avoid: frozenset[str]
) -> None:
    fit = [one for one in market if not unmet(one, want) and one.host not in avoid]
    if not fit:
        with pytest.raises(NoCapacityError) as caught:
            choose(market, want, avoid)
        assert not market or f"none of {len(market)} offers" in str(caught.value)
        return
    chosen = choose(market, want, avoid)
    assert all(one in fit for one in chosen)
    assert [cost(one) for one in chosen] == sorted(cost(one) for one in chosen)
    named = [one.host for one in chosen if one.host]
    assert len(named) == len(set(named)), "one for each physical machine"
    assert {one.host or one.id for one in chosen} == {one.host or one.id for one in fit}
    assert cost(chosen[0]) == min(cost(one) for one in fit)
    assert choose(list(reversed(market)), want, avoid) == chosen, "whatever the market's order"


@given(offers, filters)
def test_what_meets_a_filter_meets_a_looser_one(offer: Offer, want: GpuFilter) -> None:
    loose = GpuFilter(count=want.count, spot=want.spot)
    reasons = set(unmet(offer, want))
    assert set(unmet(offer, loose)) <= reasons
    for name in ("vram_gb", "reliability", "inet_down_mbps", "disk_gb", "cuda", "verified"):
        loosened: dict[str, Any] = {name: None}
        assert set(unmet(offer, replace(want, **loosened))) <= reasons


@pytest.mark.parametrize(
    ("want", "reasons"),
    [
        ({}, []),
        ({"names": ("NVIDIA GeForce RTX 4090",)}, []),
        ({"names": ("rtx_4090", "H100 SXM")}, []),
        ({"names": ("RTX 4080",)}, ["names"]),
        ({"vram_gb": 24.0}, []),
        ({"vram_gb": 32.0}, ["vramGb"]),
        ({"max_usd_per_hour": 0.4}, []),
        ({"max_usd_per_hour": 0.39}, ["maxUsdPerHour"]),
        ({"regions": ("SE", "DE")}, []),
        ({"regions": ("sweden",)}, []),
        ({"regions": ("US",)}, ["regions"]),
        ({"not_regions": ("SE",)}, ["notRegions"]),
        ({"reliability": 0.995, "inet_down_mbps": 900.0}, ["reliability", "inetDownMbps"]),
        ({"disk_gb": 201.0, "cuda": 12.9}, ["diskGb", "cuda"]),
        ({"verified": False}, ["verified"]),
        ({"spot": True}, ["spot"]),
        ({"count": 2}, ["count"]),
    ],
)
def test_conditions_are_told_by_their_names_in_the_config(
    want: dict[str, Any], reasons: list[str]
) -> None:
    assert unmet(OFFER, GpuFilter(**want)) == reasons


def test_a_card_counts_as_it_is_sold() -> None:
    for sold, reported in ((12, 12.288), (24, 24.564), (24, 24.0), (80, 79.6), (80, 81.559)):
        assert not unmet(replace(OFFER, vram_gb=reported), GpuFilter(vram_gb=sold))
        assert sold_gb(reported) == sold
    for sold, reported in ((24, 16.38), (16, 12.288), (80, 48.0), (48, 40.96)):
        assert unmet(replace(OFFER, vram_gb=reported), GpuFilter(vram_gb=sold)) == ["vramGb"]


def test_a_market_s_spelling_of_a_card_does_not_change_its_speed() -> None:
    assert speed(replace(OFFER, gpu="RTX 6000Ada")) == SPEEDS["RTX 6000 Ada"]
    assert speed(replace(OFFER, gpu="NVIDIA GeForce RTX 4090")) == SPEEDS["RTX 4090"]
    assert speed(replace(OFFER, gpu_count=2)) == 2 * SPEEDS["RTX 4090"]
    assert 0 < speed(replace(OFFER, gpu="GTX 970")) < SPEEDS["RTX 3090"]


def test_nothing_that_fits_is_explained_by_what_excludes_the_most() -> None:
    dear = [replace(OFFER, id=str(n), host=str(n), usd_per_hour=2.0) for n in range(3)]
    far = [replace(OFFER, id="x", host="x", region="Tokyo, JP")]
    want = GpuFilter(max_usd_per_hour=1.0, not_regions=("JP",))
    with pytest.raises(NoCapacityError) as caught:
        choose(dear + far, want)
    assert "none of 4 offers" in str(caught.value)
    assert "maxUsdPerHour excludes 3, notRegions excludes 1" in str(caught.value)
    with pytest.raises(NoCapacityError, match="machines that failed before excludes 1"):
        choose([OFFER], GpuFilter(), frozenset({"m1"}))
    with pytest.raises(NoCapacityError, match="offers nothing now"):
        choose([], GpuFilter())
