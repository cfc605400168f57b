"""What Vast.ai's rows mean, however odd they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemfleet.clouds.base import MachineState
from stemfleet.clouds.vast_rows import machine, offer

from tests.clouds.vast_market import make_offer

RUNNING = {
    "id": 7,
    "label": "stemfleet.dev.gpu-0.0a1b2c3d4e5f60",
    "actual_status": "running",
    "intended_status": "running",
    "cur_state": "running",
    "next_state": "running",
    "status_msg": "success, running",
    "ports": {"8185/tcp": [{"HostIp": "0.0.0.0", "HostPort": "41234"}]},
    "public_ipaddr": "203.0.113.9",
    "gpu_name": "RTX 4090",
    "dph_total": 0.41,
    "geolocation": "Sweden, SE",
    "machine_id": 501,
    "is_bid": False,
    "extra_env": [["STEMSERVE_PORT", "8185"]],
}
STOPPED = {"intended_status": "stopped", "cur_state": "stopped", "next_state": "stopped"}

json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("changed", "url"),
    [
        ({}, "http://203.0.113.9:41234"),
        ({"public_ipaddr": " 203.0.113.9\n"}, "http://203.0.113.9:41234"),
        ({"public_ipaddr": "2001:db8::1"}, "http://[2001:db8::1]:41234"),
        ({"extra_env": [["STEMSERVE_TLS_CERT", "PEM"]]}, "https://203.0.113.9:41234"),
        ({"extra_env": {"STEMSERVE_TLS_CERT": "PEM"}}, "https://203.0.113.9:41234"),
        ({"ports": {"22/tcp": [{"HostPort": "1"}]}}, None),
        ({"ports": {"8185/tcp": []}}, None),
        ({"ports": {"8185/tcp": [{"HostPort": None}]}}, None),
        ({"ports": None}, None),
        ({"ports": []}, None),
        ({"public_ipaddr": None}, None),
    ],
)
def test_where_a_worker_is_reached(changed: dict[str, Any], url: str | None) -> None:
    found = machine(RUNNING | changed)
    assert found.url == url
    assert (found.state is MachineState.RUNNING) == (url is not None)


@pytest.mark.parametrize(
    ("changed", "state", "detail"),
    [
        ({"actual_status": None}, MachineState.STARTING, "being prepared"),
        ({"actual_status": "created"}, MachineState.STARTING, "created"),
        ({"actual_status": "loading"}, MachineState.STARTING, "loading"),
        ({"actual_status": "rebooting"}, MachineState.STARTING, "rebooting"),
        ({"actual_status": "scheduling"}, MachineState.STARTING, "scheduling"),
        ({"actual_status": "what nobody knows"}, MachineState.STARTING, "what nobody knows"),
        ({"actual_status": "offline"}, MachineState.STARTING, "host does not answer"),
        ({"actual_status": "unknown"}, MachineState.STARTING, "host does not answer"),
        ({"actual_status": "exited"}, MachineState.FAILED, "it has stopped; exited"),
        ({"actual_status": "frozen"}, MachineState.FAILED, "frozen"),
        ({"actual_status": "stopped", "is_bid": True}, MachineState.FAILED, "it was outbid"),
        ({**STOPPED, "is_bid": True}, MachineState.FAILED, "it was outbid"),
        (
            {"actual_status": "created", "status_msg": "Error: OCI runtime create failed: x"},
            MachineState.FAILED,
            "OCI runtime create failed",
        ),
        (
            {"actual_status": "loading", "status_msg": "manifest for a/b:1 not found"},
            MachineState.FAILED,
            "manifest",
        ),
        (
            {"actual_status": "running", "status_msg": "unauthorized, says the song"},
            MachineState.RUNNING,
            "running",
        ),
    ],
)
def test_in_which_state_a_machine_is(
    changed: dict[str, Any], state: MachineState, detail: str
) -> None:
    found = machine(RUNNING | changed)
    assert found.state is state
    assert detail in found.detail
    assert "machine 7 on Vast.ai" in found.detail


@given(st.dictionaries(st.sampled_from(sorted(set(RUNNING) - {"id"})), json))
def test_no_row_of_a_machine_is_too_odd(odd: dict[str, Any]) -> None:
    found = machine(RUNNING | odd)
    assert found.id == "7"
    assert (found.url is None) or found.state is MachineState.RUNNING


OFFER = make_offer(3)
FIELDS = sorted({*OFFER, "dph_total"} - {"id"})


@given(
    st.dictionaries(st.sampled_from(sorted({*OFFER, "dph_total"} - {"id"})), json), st.booleans()
)
def test_no_offer_is_too_odd(odd: dict[str, Any], spot: bool) -> None:
    found = offer(OFFER | {"dph_total": 0.4} | odd, bid=None, spot=spot)
    assert found is None or (found.id == "3" and found.usd_per_hour > 0)


@pytest.mark.parametrize("price", [None, 0, -1, "free", float("nan"), float("inf")])
def test_an_offer_without_a_price_is_none(price: object) -> None:
    assert offer(OFFER | {"dph_total": price}, bid=None, spot=False) is None
    assert offer(OFFER | {"min_bid": price}, bid=0.5, spot=True) is None
