"""`--licence granted`: no preset whose weights nobody has granted a licence for."""

from __future__ import annotations

from pathlib import Path

import pytest
from stemctl.asked.licences import check_granted, only_granted
from stemctl.errors import InputError
from stemserve.schema import Preset, WeightsLicence

from tests.cli.driving import TOKEN, endpoints, stemctl, write_song
from tests.cli.test_wanted import STEMS, status
from tests.service.worker import STAND_IN, running_worker

FREE = WeightsLicence(file="free.th", granted=True, name="MIT", says="Its card says MIT.")
BARE = WeightsLicence(file="bare.th", granted=False, name="no grant", says="For science only.")


def preset(name: str, *licences: WeightsLicence) -> Preset:
    return Preset(name=name, description="", stems=STEMS, available=True, licences=list(licences))


def test_what_is_granted_passes() -> None:
    check_granted("free", [status(preset("free", FREE), preset("bare", BARE))])
    check_granted("center", [status(preset("center"))])


def test_what_is_not_granted_is_named_with_its_terms_and_others() -> None:
    known = status(preset("mixed", FREE, BARE), preset("free", FREE), preset("bare", BARE))
    with pytest.raises(InputError, match=r"mixed.*bare\.th.*science only.*With a grant: free$"):
        check_granted("mixed", [known])


def test_a_worker_that_does_not_tell_is_not_trusted() -> None:
    silent = Preset(name="free", description="", stems=STEMS, available=True)
    with pytest.raises(InputError, match="does not tell"):
        check_granted("free", [status(preset("free", FREE)), status(silent)])


def test_there_are_two_policies() -> None:
    assert not only_granted("any")
    assert only_granted("granted")
    with pytest.raises(InputError, match="granted"):
        only_granted("grunted")


def test_a_run_is_refused_before_anything_is_sent(
    tmp_path: Path, out: Path, fleet: list[str]
) -> None:
    song = write_song(tmp_path / "song.wav")
    words = ("submit", song, "--out", out, "--licence", "granted", "--json")
    with running_worker(tmp_path / "data", TOKEN, separation_command=STAND_IN) as silent:
        silent.wait_ready()
        answer = stemctl(*words, "--preset", "other", *endpoints(silent.url))
        assert answer.code == 2
        assert "other is refused" in answer.json["error"]
        with silent.client() as client:
            assert client.get("/jobs").json()["total"] == 0
    assert stemctl(*words, *fleet).code == 0
    assert (out / "song" / "vocals.wav").exists()
