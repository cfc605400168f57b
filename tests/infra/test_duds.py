"""Machines that have failed are avoided for a day, and a spoilt memory spoils nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest
from stemfleet.duds import REMEMBERED_SECONDS, remember, remembered
from stemfleet.slot import SlotProvider

from tests.clouds.clock import Clock
from tests.clouds.machines import Nothing
from tests.clouds.vast import VastEmulator
from tests.clouds.vast_market import make_offer


def file() -> Path:
    """Where it is kept."""
    return platformdirs.user_state_path("stemfleet") / "duds.json"


def test_a_machine_is_remembered_by_its_cloud_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered("vast") == frozenset()
    remember("vast", "50001")
    remember("runpod", "abc")
    assert remembered("vast") == {"50001"}
    assert remembered("runpod") == {"abc"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + REMEMBERED_SECONDS - 60)
    remember("vast", "50002")
    assert remembered("vast") == {"50001", "50002"}
    monkeypatch.setattr(time, "time", lambda: now + REMEMBERED_SECONDS + 60)
    assert remembered("vast") == {"50002"}
    remember("vast", "50003")
    assert "50001" not in file().read_text(), "what is over is not kept"


def test_many_may_remember_at_the_same_time() -> None:
    hosts = [str(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda host: remember("vast", host), hosts))
    assert remembered("vast") == set(hosts)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"vast": 5}', '{"vast": {"1": "x"}}'])
def test_a_file_that_cannot_be_understood_is_none(content: str) -> None:
    remember("vast", "1")
    file().write_text(content)
    assert remembered("vast") == frozenset()
    remember("vast", "2")
    assert remembered("vast") == {"2"}


def test_where_nothing_can_be_written_nothing_is_remembered() -> None:
    file().parent.parent.mkdir(parents=True, exist_ok=True)
    file().parent.write_text("in the way")
    remember("vast", "1")
    assert remembered("vast") == frozenset()


@pytest.fixture
def market(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    """Two machines, the first of which is the cheaper one."""
    offers = [make_offer(1, dph_base=0.2), make_offer(2, dph_base=0.4)]
    with VastEmulator(clock=Clock(60.0), offers=offers, start=Nothing) as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud


def test_no_slot_is_put_on_a_machine_that_has_failed(market: VastEmulator) -> None:
    remember("vast", "50001")
    props = {
        "prefix": "stemfleet.dev.", "slot": "gpu-0", "cloud": "vast", "preset": "center",
        "image": "x", "want": {"count": 1.0}, "token": "t", "certificate": "PEM",
        "certificateKey": "KEY",
    }  # fmt: skip
    made = SlotProvider().create(props)
    (contract,) = market.ledger.contracts()
    assert contract.host == "50002"
    assert made.outs is not None
    assert made.outs["instanceId"] == contract.id
