"""The page at ``/`` as a person meets it: in a real browser, over a worker that separates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.browser import Browser, Tab, chromium, find_chromium
from tests.service.sounds import tones, write_audio
from tests.service.worker import RunningWorker, ended, eventually, post, running_worker

NAME = "<img src=x onerror=alert(1)>.flac"

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium or Chrome is on this machine to open the page in"
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    """A worker with a token, over the real separation."""
    with running_worker(tmp_path_factory.mktemp("worker") / "data", "the-token") as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for the module's tests."""
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


@pytest.fixture
def tab(browser: Browser, tmp_path: Path) -> Iterator[Tab]:
    """A tab of the test's own; it must end without a complaint of the browser's."""
    with browser.tab(tmp_path) as opened:
        yield opened
        opened.evaluate("0")
        # An input that is not there yet and a wrong token are answers; the console lists them too.
        assert [fault for fault in opened.faults if "404" not in fault and "401" not in fault] == []


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Twelve seconds of a tone, under a name that is markup."""
    return write_audio(tmp_path / NAME, tones(12 * 44100), 44100, "flac")


def enter(tab: Tab, worker: RunningWorker, fragment: str = "") -> None:
    """Open the page and give it the token."""
    tab.open(f"{worker.url}/{fragment}")
    tab.write("#token", "the-token")
    tab.key("Enter", 13, "\r")
    tab.sees("Drop a song here")


def listen(tab: Tab) -> None:
    """Load the stems of the job that is shown, and let them play."""
    tab.click("#listen")
    tab.until("player !== null")
    tab.click("#play")
    tab.until("player.playing && player.time > 0.1")


def labels(tab: Tab) -> list[str]:
    """The stems that are shown, in their order."""
    shown: list[str] = tab.evaluate(
        "[...document.querySelectorAll('.stem b')].map((stem) => stem.innerText)"
    )
    return shown


def silent(tab: Tab) -> list[bool]:
    """Of each stem, whether nothing of it is heard."""
    heard: list[bool] = tab.evaluate("player.gains.map((gain) => gain.gain.value === 0)")
    return heard


def test_a_song_becomes_stems_to_hear_and_to_keep(
    tab: Tab, worker: RunningWorker, song: Path, tmp_path: Path
) -> None:
    enter(tab, worker)
    tab.drop(".drop", song)
    tab.sees(NAME)
    tab.evaluate("document.querySelector('[value=drums]').click()")
    tab.click("#order .main")
    tab.until("!document.querySelector('#listen').hidden && shown?.status === 'completed'")
    assert labels(tab) == ["vocals", "instrumental", "drums"]
    job_id = tab.evaluate("shown.job_id")
    with worker.client() as client:
        job = client.get(f"/job/{job_id}").json()
        assert job["input_sha256"] == hashlib.sha256(song.read_bytes()).hexdigest()
        assert job["input_name"] == NAME
        listen(tab)
        assert tab.evaluate("rows.map(({ peaks }) => peaks.length)") == [240, 240, 240]
        tab.click("[aria-label^='Download vocals.flac']")
        saved = eventually(lambda: list(tmp_path.glob("vocals.flac")))[0]
        wanted = client.get(f"/result/{job_id}", params={"file": "vocals.flac"}).content
        assert eventually(saved.read_bytes, lambda there: len(there) == len(wanted)) == wanted


def test_a_link_saves_before_anything_is_listened_to(
    tab: Tab, worker: RunningWorker, tmp_path: Path
) -> None:
    job_id = finished(worker, write_audio(tmp_path / "a.flac", tones(9000), 44100, "flac"))
    enter(tab, worker, f"#{job_id}")
    tab.click("[aria-label^='Download separation.json']")
    saved = eventually(lambda: list(tmp_path.glob("separation.json")))[0]
    assert eventually(saved.read_bytes)
    assert json.loads(saved.read_text())


def finished(worker: RunningWorker, path: Path, **request: object) -> str:
    """A completed job over that file."""
    with worker.client() as client:
        job_id = post(client, path.read_bytes(), input_name=path.name, **request)
        assert ended(client, job_id)["status"] == "completed"
    return job_id


def test_stems_play_on_the_same_sample(tab: Tab, worker: RunningWorker, song: Path) -> None:
    """Two stems that are the same sound: one taken from the other leaves nothing, at any moment."""
    job_id = finished(worker, song, stems=["instrumental", "no_vocals"], format="flac")
    enter(tab, worker, f"#{job_id}")
    listen(tab)
    tab.evaluate(
        "const ear = new AnalyserNode(player.context), rest = new AnalyserNode(player.context);"
        " const inverted = new GainNode(player.context, { gain: -1 });"
        " player.gains[0].connect(ear); player.gains[0].connect(inverted).connect(rest);"
        " player.gains[1].connect(rest);"
        " const peak = (of) => { const heard = new Float32Array(2048);"
        " of.getFloatTimeDomainData(heard); return Math.max(...heard.map(Math.abs)); }; 0"
    )
    for seek in (0, 5):
        tab.evaluate(f"seek({seek})")
        tab.until(f"player.time > {seek} + 0.2 && peak(ear) > 0.01")
        assert tab.evaluate("peak(rest)") < 0.001  # the dither of each is its own
    tab.click("#play")
    at = tab.evaluate("player.time")
    assert 5 < at < 12
    assert tab.evaluate("player.playing") is False


def test_mute_and_solo(tab: Tab, worker: RunningWorker, song: Path) -> None:
    job_id = finished(worker, song, stems=["vocals", "drums", "bass"], format="flac")
    enter(tab, worker, f"#{job_id}")
    listen(tab)
    first, second = labels(tab)[:2]
    assert silent(tab) == [False, False, False]
    tab.click(f"[aria-label='Mute {first}']")
    assert silent(tab) == [True, False, False]
    tab.click(f"[aria-label='Solo {second}']")
    assert silent(tab) == [True, False, True]
    assert tab.evaluate(f"document.querySelector(`[aria-label='Solo {second}']`).ariaPressed") == (
        "true"
    )
    tab.click(f"[aria-label='Solo {second}']")
    tab.click(f"[aria-label='Mute {first}']")
    assert silent(tab) == [False, False, False]


def test_a_long_track_is_streamed_and_keeps_in_step(
    tab: Tab, worker: RunningWorker, tmp_path: Path
) -> None:
    track = tones(12 * 60 * 8000 + 8000, channels=1, rate=8000)
    path = write_audio(tmp_path / "long.flac", track, 8000, "flac")
    enter(tab, worker, f"#{finished(worker, path, format='flac')}")
    listen(tab)
    assert tab.evaluate("rows.every(({ peaks }) => peaks === null)")
    spread = (
        "(() => { const at = player.elements.map((one) => one.currentTime);"
        " return Math.max(...at) - Math.min(...at); })()"
    )
    for seek in (0, 600):
        tab.evaluate(f"seek({seek})")
        tab.until(f"player.time > {seek} && player.playing && {spread} < 0.03")
    tab.click("[aria-label^='Mute']")
    assert tab.evaluate("player.elements.map((one) => one.muted)") == [True, False]


def test_a_wrong_token_is_told_and_the_right_one_is_kept_as_asked(
    tab: Tab, worker: RunningWorker
) -> None:
    tab.open(worker.url)
    assert tab.evaluate("document.querySelector('#problem').hidden")
    tab.write("#token", "the-tokem")
    tab.key("Enter", 13, "\r")
    tab.sees("is not this worker's")
    tab.sees("pulumi stack output token --show-secrets")
    assert tab.evaluate("sessionStorage.length + localStorage.length") == 0
    tab.write("#token", "the-token")
    tab.click("#keep")
    tab.click("#entry .main")
    tab.sees("Drop a song here")
    assert tab.evaluate("[sessionStorage.length, localStorage.length]") == [0, 1]
    assert "the-token" not in tab.evaluate("document.documentElement.outerHTML + location.href")
    tab.open(worker.url)
    tab.sees("Drop a song here")
    tab.click("#forget")
    tab.sees("Who are you?")
    assert tab.evaluate("sessionStorage.length + localStorage.length") == 0


def test_the_token_is_in_no_address(tab: Tab, worker: RunningWorker, song: Path) -> None:
    enter(tab, worker, f"#{finished(worker, song, format='flac')}")
    listen(tab)
    asked = tab.evaluate("performance.getEntriesByType('resource').map(({ name }) => name)")
    assert any("/result/" in address for address in asked)
    assert not any("the-token" in address for address in asked)
    assert "the-token" not in worker.log.read_text()


def test_a_name_is_text_and_the_policy_lets_no_other_script_run(
    tab: Tab, worker: RunningWorker, song: Path
) -> None:
    enter(tab, worker, f"#{finished(worker, song)}")
    tab.until("document.querySelector('#name').textContent === " + json.dumps(NAME))
    tab.until("document.querySelectorAll('#recent a').length > 0")
    assert tab.evaluate("document.images.length") == 0
    for attack in ("document.body.innerHTML = '<b>'", "eval('1')"):
        refused = tab.evaluate(f"(() => {{ try {{ {attack}; }} catch (error) {{ return 1; }} }})()")
        assert refused == 1
    tab.evaluate(
        "new Promise((done) => { addEventListener('securitypolicyviolation', done);"
        " const other = document.createElement('img'); other.src = '/x';"
        " document.body.append(other); }).then(() => 0)"
    )
    assert any("Content Security Policy" in fault for fault in tab.faults)
    tab.faults.clear()


def test_a_job_that_fails_says_why_and_one_that_waits_can_be_cancelled(
    tab: Tab, worker: RunningWorker, tmp_path: Path
) -> None:
    wrong = tmp_path / "no-song.flac"
    wrong.write_text("this is no sound")
    long = write_audio(tmp_path / "slow.flac", tones(20 * 60 * 8000, 1, 8000), 8000, "flac")
    enter(tab, worker)
    tab.drop(".drop", wrong)
    tab.click("#order .main")
    with worker.client() as client:
        reason = ended(client, tab.until("shown?.job_id"))["error"]
    tab.sees(reason)
    tab.drop(".drop", long)
    tab.click("#order .main")
    tab.until("shown?.status === 'pending' || shown?.status === 'running'")
    tab.click("#cancel")
    tab.sees("Cancelled.")


def test_how_far_a_job_is_and_how_long_it_takes_yet(tab: Tab, worker: RunningWorker) -> None:
    enter(tab, worker)

    def told(status: str, percent: float, left: float | None) -> str:
        details = {"percent": percent, "eta_seconds": left}
        job = json.dumps({"status": status, "details": details})
        return str(tab.evaluate(f"stepOf({job})"))

    assert told("pending", 0, None) == "Waiting for its turn"
    assert told("running", 0, None) == "Separating: 0 %"
    assert told("running", 61.9, 75.2) == "Separating: 61 %, 1:15 left"


def test_a_phone_shows_it_all_without_scrolling_sideways(
    tab: Tab, worker: RunningWorker, tmp_path: Path
) -> None:
    name = "a-very-long-name-without-any-place-to-break-it-" * 4
    path = write_audio(tmp_path / f"{name[:200]}.flac", tones(44100), 44100, "flac")
    job_id = finished(worker, path, all_stems=True, format="flac")
    tab.size(360, 740, phone=True)
    enter(tab, worker, f"#{job_id}")
    listen(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    small = tab.evaluate(
        "[...document.querySelectorAll('button, a, select')].filter((one) =>"
        " one.getClientRects().length && one.getBoundingClientRect().height < 32)"
        ".map((one) => one.outerHTML)"
    )
    assert small == []


def test_everything_can_be_reached_and_named_without_a_mouse(
    tab: Tab, worker: RunningWorker, song: Path
) -> None:
    enter(tab, worker, f"#{finished(worker, song, format='flac')}")
    listen(tab)
    unnamed = [
        node["role"]["value"]
        for node in tab.call("Accessibility.getFullAXTree")["nodes"]
        if node.get("role", {}).get("value")
        in ("button", "link", "textbox", "checkbox", "slider", "combobox", "progressbar")
        and not node.get("name", {}).get("value")
    ]
    assert unnamed == []
    tab.evaluate("document.querySelector('#file').focus()")
    reached = set()
    for _ in range(40):
        tab.key("Tab", 9)
        reached.add(tab.evaluate("document.activeElement.ariaLabel || document.activeElement.id"))
    assert {"preset", "format", "Position in seconds", "Mute vocals", "Solo vocals"} <= reached
    tab.evaluate("document.querySelector('#seek').focus()")
    tab.evaluate("player.seek(0)")
    before = tab.evaluate("player.time")
    tab.key("End", 35)
    tab.until(f"player.time > {before} + 1")


def test_a_file_is_named_by_its_digest_whatever_its_length(tab: Tab, worker: RunningWorker) -> None:
    enter(tab, worker)
    for length in (0, 1, 55, 56, 63, 64, 65, 119, 120, 2**22 + 65):
        content = bytes(i % 251 for i in range(length))
        found = tab.evaluate(
            f"sha256(new Blob([Uint8Array.from({{length: {length}}}, (_, i) => i % 251)]),"
            " new AbortController().signal, () => {})"
        )
        assert found == hashlib.sha256(content).hexdigest()
