"""`stemserve compare`: one page that needs nothing else, with what was really made of the song."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemserve.audio import Array, Block
from stemserve.comparison.compare import Card, Comparison, Result
from stemserve.comparison.excerpt import parse_span
from stemserve.comparison.measures import SILENCE_DB, level, residual
from stemserve.comparison.page import render
from stemserve.comparison.spectrogram import HEIGHT, WIDTH, spectrogram
from stemserve.errors import RequestError
from stemserve.schema import Preset, WeightsLicence
from stemserve.weights.files import DIRECTORY_VARIABLE

from tests.service.sounds import read_audio, tones, write_audio
from tests.service.test_commands import call

RATE = 44100
SECONDS = 4
STEMS = ["vocals", "instrumental", "drums", "bass", "other"]


class Page(HTMLParser):
    """What a page shows and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.loaded: dict[str, list[bytes]] = {"img": [], "audio": []}
        self.labels: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            if value := given.get(name):
                head, _, content = value.partition(";base64,")
                assert head in ("data:image/png", "data:audio/mpeg"), value[:80]
                self.loaded[tag].append(base64.b64decode(content, validate=True))
        if tag == "audio":
            self.labels.append(given["aria-label"] or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of stereo, under a name that is no HTML."""
    path = tmp_path_factory.mktemp("songs") / "<script>alert(1)<& song.flac"
    return write_audio(path, tones(SECONDS * RATE), RATE, "flac")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset that seems to be here, and fails: its weights are what they say, and no network."""
    place = tmp_path / "weights"
    place.mkdir()
    content = b"no network"
    digits = hashlib.sha256(content).hexdigest()[:8]
    (place / f"955717e8-{digits}.th").write_bytes(content)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(place))
    return "htdemucs"


def compare(*words: object) -> subprocess.CompletedProcess[str]:
    return call("stemserve", "compare", *words, "--json")


def test_the_page_holds_what_was_made_of_the_song(song: Path, tmp_path: Path, broken: str) -> None:
    out = tmp_path / "page.html"
    done = compare(song, "--presets", f"center,{broken}", "--at", "1-3", "--out", out)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert (report["page"], report["start_seconds"], report["seconds"]) == (str(out), 1.0, 2.0)
    center, failed = report["presets"]
    assert set(center["rms_db"]) == set(STEMS)
    assert center["seconds"] > 0
    assert center["residual_rms_db"] < -90
    assert "checkpoint" in failed["error"]
    assert call("stemserve", "separate", song, "--out", tmp_path, "--stems", "all").returncode == 0
    for stem in STEMS:
        (path,) = tmp_path.glob(f"*/{stem}.wav")
        there = read_audio(path)[0][RATE : 3 * RATE]
        assert center["rms_db"][stem] == pytest.approx(level(there).rms_db, abs=0.01)

    page = Page(out.read_text())
    assert page.tags.count("script") == 1
    text = "".join(page.words)
    assert song.name in text
    assert failed["error"] in text
    assert len(page.loaded["img"]) == len(page.loaded["audio"]) == 1 + len(STEMS)
    assert page.labels == ["mix, as it came", *(f"{stem}, center" for stem in STEMS)]
    mix, *stems = (_heard(sound) for sound in page.loaded["audio"])
    whole, _ = read_audio(song)
    assert level(mix).rms_db == pytest.approx(level(whole[RATE : 3 * RATE]).rms_db, abs=0.5)
    for stem, sound in zip(STEMS, stems, strict=True):
        assert len(sound) == pytest.approx(2 * RATE, abs=4000)
        if center["rms_db"][stem] > -60:
            assert level(sound).rms_db == pytest.approx(center["rms_db"][stem], abs=0.5)
            assert f"RMS {center['rms_db'][stem]:.1f} dB" in text


def test_without_words_it_takes_what_there_is(song: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = compare(song, "--out", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [result["preset"] for result in report["presets"]] == ["center"]
    assert report["seconds"] == pytest.approx(SECONDS, abs=0.01)


@pytest.mark.parametrize(
    ("words", "word", "said"),
    [
        (("--presets", "center,centre"), "unknown-name", "center"),
        (("--presets", "center,htdemucs"), "preset-unavailable", "955717e8"),
        (("--at", "60-90"), "invalid-request", "4.0 s long"),
        (("--at", "3-1"), "invalid-request", "later"),
        (("--at", "0-1000"), "invalid-request", "At most 120 s"),
        (("--at", "soon"), "invalid-request", "60-90"),
        (("--out", "/not/there/page.html"), "settings", "/not/there"),
    ],
)
def test_what_cannot_be_compared_is_told(
    song: Path, tmp_path: Path, words: tuple[str, ...], word: str, said: str
) -> None:
    out = tmp_path / "page.html"
    done = compare(song, *(() if "--out" in words else ("--out", out)), *words)
    assert done.returncode == 2
    problem = json.loads(done.stdout)
    assert problem["type"] == word
    assert said in problem["error"]
    assert not out.exists()


def test_a_file_that_is_no_song_is_told(tmp_path: Path) -> None:
    for file in (__file__, tmp_path / "nothing"):
        done = compare(file, "--out", tmp_path / "page.html")
        assert done.returncode == 2
        assert json.loads(done.stdout)["type"] == "not-audio"


def test_presets_stand_side_by_side_with_their_terms() -> None:
    sound = tones(RATE)
    card = Card(level(sound), spectrogram(sound, RATE), b"sound")
    terms = WeightsLicence(file="a.th", granted=False, name="no grant", says="Nobody said yes.")
    first = Preset(name="first", description="<b>", stems=["vocals"], available=True, licences=[])
    second = first.model_copy(update={"name": "second", "licences": [terms]})
    results = (
        Result(first, 2.0, 1.0, {"vocals": card}, level(sound)),
        Result(second, 4.0, 1.0, {"vocals": card, "guitar": card}, level(0 * sound)),
    )
    page = Page(render(Comparison("song", 61.5, 8.0, RATE, "cpu", card, results)))
    assert page.labels == [
        *("mix, as it came", "vocals, first", "vocals, second", "guitar, second")
    ]
    text = " ".join(page.words)
    for shown in ("1:01.5 to 1:09.5", "4.00", "2.00", "none needed", "no grant", "0 dB"):
        assert shown in text
    failed = replace(results[0], error="It <i>failed</i>.")
    page = Page(render(Comparison("song", 0, 8.0, RATE, "cpu", card, (failed,))))
    assert "It <i>failed</i>." in "".join(page.words)


@pytest.mark.parametrize("pitch", [110.0, 1000.0, 8000.0])
def test_a_tone_is_a_line_at_its_pitch(pitch: float) -> None:
    times = np.arange(2 * RATE) / RATE
    sound = np.repeat(np.sin(2 * np.pi * pitch * times)[:, None], 2, axis=1).astype(np.float32)
    picture = _seen(spectrogram(sound, RATE))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    brightness = picture.sum(axis=2)[:, WIDTH // 2]
    octaves = (HEIGHT - 0.5 - int(brightness.argmax())) / HEIGHT * np.log2(18_000 / 40)
    assert 40 * 2**octaves == pytest.approx(pitch, rel=0.08)
    assert _seen(spectrogram(0 * sound, RATE)).max() <= 4


@pytest.mark.parametrize(("frames", "channels", "rate"), [(1, 1, 8000), (100, 2, 192_000)])
def test_any_sound_has_a_picture(frames: int, channels: int, rate: int) -> None:
    assert _seen(spectrogram(tones(frames, channels, rate), rate)).shape == (HEIGHT, WIDTH, 3)


def test_levels_and_what_is_left_over() -> None:
    square = np.full((1000, 2), 0.5, np.float32)
    assert level(square).rms_db == pytest.approx(-6.02, abs=0.01)
    assert level(0 * square).peak_db == SILENCE_DB
    two = {"vocals": square, "instrumental": 0 * square}
    assert not residual(square, two).any()
    more = two | {"drums": square, "other": -square, "instrumental": square, "no_drums": square}
    assert not residual(square, more).any()
    assert level(residual(square, {"vocals": square, "drums": square})).peak_db == pytest.approx(
        -6.02, abs=0.01
    )


@given(start=st.integers(0, 7200), length=st.integers(1, 120))
def test_times_are_read_in_both_ways(start: int, length: int) -> None:
    end = start + length
    assert parse_span(f"{start}-{end}") == (start, end)
    clock = f"{start // 60}:{start % 60:02d} - {end // 60}:{end % 60:02d}.0"
    assert parse_span(clock) == (start, end)


@given(text=st.text())
def test_no_text_is_misread(text: str) -> None:
    with suppress(RequestError):
        start, end = parse_span(text)
        assert 0 <= start < end


def _heard(content: bytes) -> Block:
    with av.open(io.BytesIO(content), "r") as file:
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
    sound: Block = np.concatenate(frames, axis=1).T.astype(np.float32)
    return sound


def _seen(content: bytes) -> Array:
    with av.open(io.BytesIO(content), "r", format="png_pipe") as file:
        (frame,) = file.decode(video=0)
        picture: Array = frame.to_ndarray(format="rgb24")
    return picture
