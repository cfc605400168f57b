"""The emulated Vast.ai speaks to the SDK as it comes from the registry, traps included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from vastai import VastAI

from tests.clouds.clock import Clock
from tests.clouds.faults import Fault
from tests.clouds.vast import VastEmulator
from tests.clouds.vast_market import make_offer


@pytest.fixture
def market() -> Iterator[VastEmulator]:
    """A small market, whose time passes only in leaps, and without limits of pace."""
    offers = [
        make_offer(11, dph_base=0.5, geolocation="Texas, US"),
        make_offer(12, dph_base=0.4),
        make_offer(13, "RTX 3090", dph_base=0.2),
        *(make_offer(id_, "RTX 3060") for id_ in range(20, 60)),
    ]
    with VastEmulator(clock=Clock(0.0), offers=offers, limits=False) as cloud:
        yield cloud


@pytest.fixture
def sdk(market: VastEmulator) -> VastAI:
    """The SDK with its defaults, but for where and who."""
    return VastAI(api_key=market.key, server_url=market.url)


def rent(sdk: VastAI, offer: int, **more: object) -> int:
    """Rent as an example of the SDK's does; the new id."""
    terms = {"image": "debian", "disk": 20, "env": {"-p 8185:8185": "1", "A": "b c"}} | more
    made = sdk.create_instance(id=offer, **terms)
    assert made["success"] is True
    return int(made["new_contract"])


def error(call: Callable[..., object], *arguments: object, **more: object) -> tuple[int, str]:
    """The status and the text with which a call is refused."""
    with pytest.raises(requests.HTTPError) as caught:
        call(*arguments, **more)
    assert caught.value.response is not None
    return caught.value.response.status_code, caught.value.response.text


def test_the_market_is_searched_in_the_sdk_s_own_words(sdk: VastAI) -> None:
    query = "gpu_name=RTX_4090 num_gpus=1 gpu_ram>=24 reliability>0.98 dph_total<0.6"
    assert [row["id"] for row in sdk.search_offers(query=query, order="dph_total")] == [12, 11]
    there = sdk.search_offers(query=query + " geolocation in [US,DE]", limit=5)
    assert [row["id"] for row in there] == [11]
    raw = sdk.search_offers(query={"gpu_ram": {"gte": 24_570}}, order="dph_total", storage=100)
    assert [row["id"] for row in raw] == [13], "a 24 GB card reports less than 24 × 1024 MB"
    assert raw[0]["dph_total"] == pytest.approx(0.2 + 0.15 * 100 / 730, abs=1e-4)
    assert len(sdk.search_offers_new(query={"gpu_name": {"eq": "RTX 4090"}})) == 2
    assert error(sdk.search_offers, query={"colour": {"eq": "red"}})[0] == 400


def test_an_instance_from_its_creation_to_its_destruction(
    sdk: VastAI, market: VastEmulator
) -> None:
    id_ = rent(sdk, 12, label="mine")
    assert 12 not in [row["id"] for row in sdk.search_offers(query={})]
    assert sdk.show_instance(id_) is None, "a list lags behind"
    market.clock.advance(3)
    row = sdk.show_instance(id_)
    assert (row["actual_status"], row["ports"], row["label"]) == ("created", None, "mine")
    assert row["extra_env"] == {"-p 8185:8185": "1", "A": "b c"}
    market.clock.advance(100)
    (row,) = sdk.show_instances()
    assert row["actual_status"] == "running"
    assert int(row["ports"]["8185/tcp"][0]["HostPort"]) > 0
    sdk.label_instance(id_, "renamed")
    assert sdk.show_instance(id_)["label"] == "renamed"
    sdk.stop_instance(id_)
    assert sdk.show_instance(id_)["actual_status"] == "stopped"
    sdk.start_instance(id_)
    market.clock.advance(100)
    assert sdk.show_instance(id_)["actual_status"] == "running"
    sdk.destroy_instance(id_)
    assert sdk.show_instances() == []
    assert error(sdk.destroy_instance, id_)[0] == 404
    assert 12 in [row["id"] for row in sdk.search_offers(query={})]


def test_it_serves_by_itself_and_vast_s_own_command_speaks_to_it(tmp_path: Path) -> None:
    here = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "tests.clouds.vast", "--machines", "nothing"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            lines = [served.stdout.readline() for _ in range(3)]
            given = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines)
            vastai = [str(Path(sys.executable).with_name("vastai")), "search", "offers"]
            done = subprocess.run(
                [*vastai, "gpu_name=RTX_4090", "--raw"],
                env=os.environ | given,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            served.terminate()
    rows = json.loads(done.stdout)
    assert {row["gpu_name"] for row in rows} == {"RTX 4090"}


def test_a_list_comes_in_pages(sdk: VastAI, market: VastEmulator) -> None:
    ids = [rent(sdk, 20 + n, label=f"n{n}") for n in range(30)]
    market.clock.advance(3)
    assert [row["id"] for row in sdk.show_instances()] == ids
    page = sdk.show_instances_v1({"limit": 10, "select_filters": {"label": {"eq": "n7"}}})
    assert [row["id"] for row in page["instances"]] == [ids[7]]
    assert error(sdk.show_instances_v1, {"limit": 26})[0] == 400
    assert error(sdk.show_instances_v1, {"select_filters": {"image": {"eq": "x"}}})[0] == 400
    old = requests.get(
        f"{market.url}/api/v0/instances/", headers={"Authorization": f"Bearer {market.key}"}
    )
    assert (old.status_code, old.json()["error"]) == (410, "deprecated_endpoint")


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"disk": 5}, "disk"),
        ({"price": 200.0}, "invalid_price"),
        ({"image": ""}, "image"),
        ({"label": "x" * 257}, "label_too_long"),
        ({"env": {"A": "x" * 33_000}}, "32768"),
        ({"env": {"A B": "x"}}, "env"),
        ({"env": {"A": 1}}, "texts"),
        ({"args": "--port 1", "runtype": "args"}, "args"),
        ({"args": ["x" * 5000]}, "args"),
        ({"disk": 4000}, "disk space"),
    ],
)
def test_what_the_real_api_would_refuse_is_refused(
    sdk: VastAI, market: VastEmulator, terms: dict[str, Any], said: str
) -> None:
    whole = {"image": "debian", "disk": 20} | terms
    status, text = error(sdk.create_instance, id=12, **whole)
    assert status == 400
    assert said in text
    assert market.ledger.contracts() == []


def test_offers_are_gone_once_they_are_rented(sdk: VastAI) -> None:
    rent(sdk, 12)
    status, text = error(sdk.create_instance, id=12, image="debian", disk=20)
    assert (status, "no_such_ask" in text) == (400, True)
    assert error(sdk.create_instance, id=999, image="debian", disk=20)[0] == 400


def test_a_bid_below_the_least_leaves_a_stopped_instance(sdk: VastAI, market: VastEmulator) -> None:
    _, text = error(sdk.create_instance, id=12, image="debian", disk=20, price=0.01)
    assert "new_contract" in text
    market.clock.advance(60)
    (row,) = sdk.show_instances()
    assert (row["actual_status"], row["is_bid"]) == ("stopped", True)


def test_who_has_which_key_may_do_what(sdk: VastAI, market: VastEmulator) -> None:
    mine, other = rent(sdk, 12), rent(sdk, 11)
    stranger = VastAI(api_key="nobody", server_url=market.url)
    assert error(stranger.show_user)[0] == 401
    own = VastAI(api_key=market.instances[mine].key, server_url=market.url)
    assert error(own.show_instances)[0] == 401
    assert error(own.destroy_instance, other)[0] == 401
    own.destroy_instance(mine)
    assert [c.ended_by for c in market.ledger.contracts()] == ["its own key", ""]


def test_calls_that_come_too_soon_are_turned_away_in_plain_text(market: VastEmulator) -> None:
    market.limits = True
    once = VastAI(api_key=market.key, server_url=market.url, retry=1)
    rent(once, 12)
    status, text = error(once.create_instance, id=11, image="debian", disk=20)
    assert (status, text) == (429, "API requests too frequent: endpoint threshold=12")
    market.clock.advance(11)
    assert error(once.create_instance, id=11, image="debian", disk=20)[0] == 429
    market.clock.advance(12)
    rent(once, 11)


def test_the_meter_runs_until_the_account_is_empty(sdk: VastAI, market: VastEmulator) -> None:
    market.credit = 1.0
    rent(sdk, 12)
    market.clock.advance(100)
    sdk.show_user()
    market.clock.advance(3600)
    assert sdk.show_user()["credit"] == pytest.approx(0.6, abs=0.02)
    (contract,) = market.ledger.contracts()
    assert contract.usd == pytest.approx(0.4, abs=0.02)
    market.clock.advance(3600 * 3)
    assert sdk.show_user()["credit"] < 0
    assert sdk.show_instances()[0]["actual_status"] == "stopped"
    assert "credit" in error(sdk.create_instance, id=11, image="debian", disk=20)[1]


def test_the_sdk_s_own_repetition_of_a_rental_is_why_ours_asks_once(
    sdk: VastAI, market: VastEmulator
) -> None:
    market.faults.arm("rent", Fault(502, "", lands=True), count=2)
    with pytest.raises(requests.HTTPError):
        sdk.create_instance(id=12, image="debian", disk=20)
    assert len(market.ledger.alive()) == 1
    assert len(market.ledger.calls("rent")) == 3
