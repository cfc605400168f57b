"""What a run would cost: the arithmetic of plans, and `stemctl quote` on both emulated markets."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemctl.asked.presets import COSTS
from stemctl.errors import InputError
from stemctl.inputs.headers import song_length
from stemctl.money import speeds
from stemctl.money.quote import Work, choose, make_plans, until, worthwhile
from stemctl.money.speeds import Boot
from stemfleet.clouds.base import Offer
from stemfleet.clouds.offers import expected_speed
from stemserve.separation.presets import PRESETS

from tests.cli.driving import stemctl, write_song
from tests.clouds.runpod import RunpodEmulator
from tests.clouds.vast import VastEmulator

BOOT_HOURS = speeds.BOOT_S / 3600
SAMPLE = Path(__file__).parents[1] / "sample" / "song.flac"


def offer(gpu: str, price: float, host: str) -> Offer:
    return Offer(id=f"{gpu}-{host}", gpu=gpu, usd_per_hour=price, region="SE", host=host)


prices = st.lists(st.floats(0.05, 5), min_size=1, max_size=12)


@given(prices, prices, st.floats(1, 3e6), st.floats(0.01, 500), st.floats(0.1, 200))
def test_the_plan_is_within_the_limits_or_the_refusal_says_how_near_one_comes(
    cheap: list[float], dear: list[float], seconds: float, budget: float, by: float
) -> None:
    market = {
        "vast": [offer("RTX 3090", price, str(n)) for n, price in enumerate(cheap)],
        "runpod": [offer("RTX 4090", price, "") for price in dear],
    }
    plans = make_plans(Work(3, seconds, 3), market, "ensemble", ())
    for plan in plans:
        assert plan.usd == pytest.approx(plan.usd_per_hour * plan.hours, rel=1e-2)
        assert plan.hours > BOOT_HOURS
        assert plan.usd_per_hour <= plan.cap * plan.count
    best = worthwhile(plans)
    assert best[0].usd == min(plan.usd for plan in plans)
    assert all(a.usd <= b.usd and a.hours > b.hours for a, b in pairwise(best))
    if not any(plan.usd <= budget and plan.hours <= by for plan in plans):
        with pytest.raises(InputError, match=r"the cheapest, |the fastest, "):
            choose(plans, by, budget)
        return
    chosen = choose(plans, by, budget)
    assert chosen.usd <= budget
    assert chosen.hours <= by
    assert not any(p.usd < chosen.usd and p.hours <= by and p.usd <= budget for p in plans)


def test_more_machines_cost_their_boots_and_save_time() -> None:
    market = {"vast": [offer("RTX 3090", 0.2, str(n)) for n in range(8)]}
    plans = {p.count: p for p in make_plans(Work(9, 36_000, 9), market, "htdemucs", ())}
    assert plans[1].hours - BOOT_HOURS == pytest.approx(8 * (plans[8].hours - BOOT_HOURS))
    assert plans[8].usd - plans[1].usd == pytest.approx(7 * 0.2 * BOOT_HOURS)
    assert choose(list(plans.values()), None, None).count == 1
    assert choose(list(plans.values()), None, plans[8].usd).count == 8
    assert choose(list(plans.values()), plans[4].hours, None).count == 4


def test_a_boot_that_costs_nothing_takes_its_time_all_the_same() -> None:
    market = {"vast": [offer("RTX 3090", 0.2, "1")]}
    speeds.learn_boot("vast", Boot(300.0))
    (paid,) = make_plans(Work(1, 600, 1), market, "htdemucs", ())
    for _ in range(20):
        speeds.learn_boot("vast", Boot(300.0, free=240.0))
    (free,) = make_plans(Work(1, 600, 1), market, "htdemucs", ())
    assert free.hours == pytest.approx(paid.hours)
    assert paid.usd - free.usd == pytest.approx(0.2 * 240 / 3600, rel=1e-3)


def test_expected_costs_are_those_that_the_presets_tell() -> None:
    assert {
        name: (round(recipe.cost(recipe.stems), 1), round(recipe.cost(("vocals",)), 1))
        for name, recipe in PRESETS.items()
    } == COSTS


def test_a_preset_that_there_is_not_has_no_price(vast: VastEmulator, tmp_path: Path) -> None:
    del vast
    write_song(tmp_path / "a.wav")
    answer = stemctl("quote", tmp_path, "--cloud", "vast", "--preset", "ensembel")
    assert answer.code == 2
    assert "did you mean ensemble" in answer.err.replace("\n", " ")


def test_what_was_measured_is_believed_and_kept_for_the_next_quote() -> None:
    expected = speeds.speed_of("RTX 4090", "ensemble", ("vocals",))
    assert not expected.measured
    speeds.learn([("NVIDIA GeForce RTX 4090", "ensemble/two", 300.0, 30.0)])
    assert not speeds.speed_of("RTX 4090", "ensemble", ("vocals",)).measured, "not enough yet"
    speeds.learn([("RTX 4090", "ensemble/two", 300.0, 20.0), ("", "ensemble/two", 9.0, 1.0)])
    measured = speeds.speed_of("RTX 4090", "ensemble", ("vocals", "instrumental"))
    assert measured.measured
    assert measured.realtime == pytest.approx(12.0)
    assert not speeds.speed_of("RTX 4090", "ensemble").measured, "other work"
    other = speeds.speed_of("RTX 3090", "ensemble", ("vocals",))
    assert not other.measured
    assert other.realtime == pytest.approx(12.0 / expected_speed("RTX 4090")), "as far off as it"
    assert speeds.speed_of(speeds.HERE, "ensemble", ("vocals",)).realtime < 1
    speeds.learn_boot("vast", Boot(100.0, free=50.0))
    speeds.learn_boot("vast", Boot(200.0, free=70.0))
    assert speeds.boot_of("vast") == Boot(150.0, free=60.0)
    assert speeds.boot_of("runpod") == Boot(speeds.BOOT_S)
    (platformdirs.user_data_path("stemfleet") / "speeds.json").write_text("{not json")
    assert speeds.speed_of("RTX 4090", "ensemble", ("vocals",)) == expected


def test_lengths_come_from_headers_else_from_sizes(tmp_path: Path) -> None:
    assert song_length(write_song(tmp_path / "a.wav", 2.5)).seconds == pytest.approx(2.5, abs=0.01)
    flac = song_length(SAMPLE)
    assert flac.known
    assert flac.seconds > 10
    video = tmp_path / "film.webm"
    video.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(32_000 * 60))
    assert song_length(video).seconds == pytest.approx(60, rel=0.01)
    assert not song_length(video).known
    assert not song_length(tmp_path / "gone.mp3").known
    assert not song_length(None).known


@pytest.mark.parametrize(
    ("text", "hours"),
    [("3h", 3), ("90m", 1.5), ("1.5h", 1.5), ("12:30", 2.5), ("09:00", 23), ("2030-01-02T12", 26)],
)
def test_by_is_a_span_a_time_or_a_date(text: str, hours: float) -> None:
    now = datetime(2030, 1, 1, 10, 0).astimezone()
    assert until(text, now) == pytest.approx(hours)
    for wrong in ("soon", "25:99", "2029-12-31T00:00", "-3h", ""):
        with pytest.raises(InputError, match="--by"):
            until(wrong, now)


def test_a_quote_over_both_markets(
    vast: VastEmulator, runpod: RunpodEmulator, tmp_path: Path
) -> None:
    for number in range(3):
        write_song(tmp_path / f"{number}.wav", 20)
    (tmp_path / "empty.wav").touch()
    answer = stemctl("quote", tmp_path, "--json")
    assert answer.code == 0
    told = answer.json
    assert (told["tracks"], told["audio_seconds"], told["lengths_known"]) == (3, 60.0, 3)
    assert told["plan"]["usd"] == min(plan["usd"] for plan in told["plans"])
    assert "is empty" in json.dumps(told["unusable"])
    assert len(vast.ledger.contracts()) == 0, "a quote rents nothing"

    shown = stemctl("quote", tmp_path, "--cloud", "vast", "--gpu", "RTX 4090", "--by", "1h")
    assert shown.code == 0
    assert "3 tracks, 1 min of audio" in shown.out
    assert "best: 1 × RTX 4090 on vast, takes " in shown.out
    dear = stemctl("quote", tmp_path, "--cloud", "runpod", "--budget", 0.001)
    assert dear.code == 2
    assert "no plan costs $0.00 or less: the cheapest, " in dear.err


def test_without_a_key_a_quote_tells_the_hours_and_why_there_are_no_prices(tmp_path: Path) -> None:
    answer = stemctl("quote", write_song(tmp_path / "a.wav", 3))
    assert answer.code == 1
    assert "1 track, 1 min of audio" in answer.out
    assert "VAST_API_KEY" in answer.err
    assert "RUNPOD_API_KEY" in answer.err


def test_what_is_not_there_has_no_price(tmp_path: Path) -> None:
    answer = stemctl("quote", tmp_path / "nothere.wav", "--json")
    assert answer.code == 2
    assert "nothing to separate" in answer.json["error"]
