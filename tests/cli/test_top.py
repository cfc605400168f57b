"""`stemctl top`: what the workers do at a moment, what they cost, and how far the run is."""

from __future__ import annotations

import time
from pathlib import Path

from stemctl.asked.track import Track
from stemctl.asked.wanted import Wanted
from stemctl.dispatch.budget import Estimate
from stemctl.places.staging import Staging
from stemctl.telling.ledger import Ledger
from stemctl.top import running
from stemserve.schema import StemFormat

from tests.cli.driving import endpoints, stemctl, write_song
from tests.service.worker import RunningWorker

WANTED = Wanted(preset="center", stems=("vocals",), format=StemFormat.WAV, bit_depth=None)


def test_a_worker_at_work_shows_its_track_and_one_that_is_gone_why(
    workers: list[RunningWorker], dead_url: str, tmp_path: Path
) -> None:
    song = write_song(tmp_path / "a.wav", 0.5)
    names = endpoints(workers[0].url, dead_url)
    assert stemctl("submit", song, "--out", tmp_path / "out", *names).code == 0
    answer = stemctl("top", *names, "--out", tmp_path / "out", "--json")
    assert answer.code == 1
    busy, gone = answer.json["workers"]
    assert (busy["state"], busy["error"]) == ("idle", None)
    assert (busy["pending"], busy["track"]) == (0, None)
    assert gone["state"] == "silent"
    assert gone["error"]
    assert answer.json["run"] is None, "it is over"
    shown = stemctl("top", *names)
    assert "2 workers, $0.00/h" in shown.out
    assert stemctl("top", "--endpoint", dead_url).code == 2


def test_a_run_that_goes_on_tells_when_it_will_be_done(tmp_path: Path) -> None:
    tracks = [Track(f"{n}", f"{n}", WANTED, (f"{n}/vocals.wav",)) for n in range(4)]
    with Staging(tmp_path) as staging:
        expected = Estimate(100.0, 1.0)
        with Ledger(tmp_path, staging.folder.name, "stemctl", tracks, expected, None):
            run = running(tmp_path)
            assert run is not None
            assert (run.tracks, run.ended, run.left_seconds) == (4, 0, 100.0)
            assert run.seconds <= time.time()
        assert running(tmp_path) is not None
    assert running(tmp_path) is None, "its process is gone"
    assert running(tmp_path / "elsewhere") is None
