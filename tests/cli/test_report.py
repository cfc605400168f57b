"""What the ledger tells of runs: right sums, a page of its own, and troubles in one line."""

from __future__ import annotations

import sqlite3
from html.parser import HTMLParser
from pathlib import Path

import anyio
import pytest
from stemctl.asked.wishes import Wishes
from stemctl.dispatch import backlog
from stemctl.dispatch.report import End, Outcome, Report
from stemctl.fleet.stack import Endpoint, Fleet
from stemctl.inputs.find import find_inputs
from stemctl.run import Asked, run
from stemctl.telling.ledger import Ledger
from stemctl.telling.tables import LEDGER, VERSION
from stemserve.schema import BitDepth

from tests.cli.driving import endpoints, stemctl
from tests.workers.fleet import emulated_workers, write_input

PRICES = {"cheap": 0.36, "dear <&>": 3.6}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a run was made, with one track that failed."""
    folder = tmp_path_factory.mktemp("report")
    for number in range(6):
        write_input(folder / "in" / f"song{number}.wav", 60)
    (folder / "in" / "empty.wav").touch()
    with emulated_workers([2, 2], 60) as workers, pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog, "WORTH", 0.0)  # no races: each track is one trip
        slots = zip(PRICES.items(), workers, strict=True)
        fleet = Fleet(
            endpoints=tuple(
                Endpoint(slot=slot, url=worker.url, gpu="A <b>100", usd_per_hour=price)
                for (slot, price), worker in slots
            )
        )
        inputs = find_inputs([str(folder / "in")], folder / "out", Wishes(bit_depth=BitDepth.B16))
        report = anyio.run(run, inputs, fleet, Asked(folder / "out"))
    assert report.exit_code == 1
    return folder / "out"


def test_costs_are_prices_times_seconds_and_sums_are_of_the_tracks(out: Path) -> None:
    told = stemctl("report", "--out", out, "--json").json
    for track in told["tracks"]:
        if track["state"] == "done":
            assert track["usd"] == pytest.approx(PRICES[track["worker"]] * track["seconds"] / 3600)
            assert track["realtime"] == pytest.approx(60 / track["seconds"])
            assert track["tries"] == 1
    totals = told["totals"]
    assert (totals["tracks"], totals["done"], totals["failed"]) == (7, 6, 1)
    assert totals["usd"] == pytest.approx(sum(track["usd"] or 0 for track in told["tracks"]))
    assert totals["sound_seconds"] == 6 * 60
    assert totals["sent"] == sum(path.stat().st_size for path in (out / "../in").iterdir())
    assert totals["usd_rented"] > totals["usd"]
    stages = ["reading", "uploading", "waiting", "computing", "downloading", "ended"]
    for trip in told["trips"]:
        times = [trip[stage] for stage in stages]
        assert times == sorted(times)


def test_people_get_a_table_with_the_reasons_of_failures(out: Path) -> None:
    answer = stemctl("report", 1, "--out", out)
    assert answer.code == 0
    assert "is empty" in answer.out
    assert "6 done, 1 failed, of 7" in answer.out
    listed = stemctl("runs", "--out", out, "--json").json["runs"]
    assert [one["run"] for one in listed] == [1]
    assert listed[0]["state"] == "ended"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for name, v in attrs if name in ("src", "href")]


def test_the_page_draws_each_stage_and_needs_nothing_from_elsewhere(
    out: Path, tmp_path: Path
) -> None:
    page = tmp_path / "run.html"
    assert stemctl("report", "--out", out, "--html", page).code == 0
    text, parsed = page.read_text(), _Page()
    parsed.feed(text)
    assert parsed.links == []
    assert "@import" not in text
    assert "url(" not in text
    assert not {"script", "link", "img", "b"} & set(parsed.tags)
    assert "A &lt;b&gt;100" in text
    assert parsed.tags.count("rect") == 6 * 5
    assert "prefers-color-scheme: dark" in text
    assert stemctl("report", "--out", out, "--html", tmp_path / "no" / "run.html").code == 2


@pytest.mark.parametrize("spoil", ["garbage", "newer"])
def test_a_ledger_that_cannot_be_used_costs_no_run(tmp_path: Path, spoil: str) -> None:
    write_input(tmp_path / "in" / "song.wav", 30)
    out = tmp_path / "out"
    out.mkdir()
    if spoil == "garbage":
        (out / LEDGER).write_text("no database " * 500)
    else:
        with sqlite3.connect(out / LEDGER) as db:
            db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = (out / LEDGER).read_bytes()
    with emulated_workers([5], 60) as workers:
        words = ["submit", tmp_path / "in", "--out", out, "--bit-depth", "16"]
        answer = stemctl(*words, *endpoints(workers[0].url))
    assert answer.code == 0, answer.err
    assert "this run is not written down" in answer.err
    assert (out / LEDGER).read_bytes() == before
    told = stemctl("report", "--out", out)
    assert told.code == 2
    assert str(out / LEDGER) in told.err


def test_a_folder_without_a_run_and_a_run_that_never_was_are_told(
    out: Path, tmp_path: Path
) -> None:
    assert "no run was made" in stemctl("runs", "--out", tmp_path).err
    answer = stemctl("report", 99, "--out", out)
    assert answer.code == 2
    assert "there is no run 99" in answer.err


def test_a_track_that_a_killed_run_has_put_in_place_is_counted_as_its(tmp_path: Path) -> None:
    place = "song"
    for command in ("first", "second"):
        # Nobody holds the lock of the first one's staging folder when the second begins.
        with Ledger(tmp_path, f".stemctl-{command}", command, []) as ledger:
            if command == "first":
                ledger.ended(Outcome("song.wav", End.LEFT, place))
            else:
                ledger.ended(Outcome("song.wav", End.THERE, place))
                ledger.finished(Report(str(tmp_path)))
    first = stemctl("report", 1, "--out", tmp_path, "--json").json
    assert first["run"]["state"] == "killed"
    assert [track["state"] for track in first["tracks"]] == ["done"]
