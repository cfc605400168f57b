"""Weights: what is known of them, how they come here, and that nothing false is ever used."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stemserve.__main__ import app
from stemserve.errors import DamagedWeightsError, DiskFullError, WeightsFetchError
from stemserve.separation.presets import PRESETS, lacks
from stemserve.weights import records
from stemserve.weights.fetch import ATTEMPTS, MIRROR_VARIABLE, fetch
from stemserve.weights.files import DIRECTORY_VARIABLE, WeightFile, verified
from stemserve.weights.registry import digest_in_name, registry
from typer.testing import CliRunner

from tests.service.mirror import (
    Manner,
    Mirror,
    breaks_after,
    declares,
    gives,
    mirror_of,
    refuses,
)
from tests.service.worker import post, running_worker

SIZE = 200_000
HTDEMUCS = WeightFile("955717e8-8726e21a.th")
VOCALS = WeightFile("04573f0d-f3cf25b2.th")
UNNOTED = WeightFile("Kim_Inst.onnx")
CONTENTS = {
    file.published: np.random.default_rng(seed).bytes(SIZE)
    for seed, file in enumerate((HTDEMUCS, VOCALS, UNNOTED))
}
REGISTRY = """
[licences.none]
granted = false
name = "no grant"
says = "Nobody has said yes."
sources = []
[licences.free]
granted = true
name = "MIT"
says = "The model card says so."
sources = []
"""
ENTRY = """
[weights."{file}"]
model = "a model"
url = "http://127.0.0.1:1/not-the-mirror"
digest_note = "made here"
licence = "{licence}"
{known}
"""


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of three small files, one of them without a digest; nothing is fetched yet."""
    text = REGISTRY
    for file, content in CONTENTS.items():
        digest = f'size = {SIZE}\nsha256 = "{hashlib.sha256(content).hexdigest()}"'
        if file == UNNOTED.published:
            digest = f"size_about = {SIZE + 1000}"
        licence = "free" if file == VOCALS.published else "none"
        text += ENTRY.format(file=file, licence=licence, known=digest)
    path = tmp_path / "registry.toml"
    path.write_text(text)
    monkeypatch.setattr("stemserve.weights.registry.REGISTRY", path)
    monkeypatch.setattr("stemserve.weights.fetch._PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that weights are looked for in; not there yet."""
    path = tmp_path / "weights"
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(path))
    return path


@pytest.fixture
def mirror(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A mirror of the three files."""
    with mirror_of(dict(CONTENTS)) as running:
        monkeypatch.setenv(MIRROR_VARIABLE, running.url)
        yield running


def run(*words: str) -> tuple[int, str]:
    """Exit code and standard output of ``stemserve weights …``."""
    done = CliRunner().invoke(app, ["weights", *words])
    return done.exit_code, done.stdout


def states() -> dict[str, str]:
    """How ``stemserve weights list`` says that each file is."""
    return {row["file"]: row["state"] for row in json.loads(run("list", "--json")[1])["weights"]}


def test_a_file_is_fetched_once_and_then_known(mirror: Mirror, place: Path) -> None:
    assert states()[HTDEMUCS.published] == "missing"
    told: list[int] = []
    path = fetch(HTDEMUCS, progress=lambda here, _whole: told.append(here))
    assert path == place / HTDEMUCS.published
    assert path.read_bytes() == CONTENTS[HTDEMUCS.published]
    assert told == sorted(told)
    assert told[-1] == SIZE
    assert states()[HTDEMUCS.published] == "verified"
    assert fetch(HTDEMUCS) == path
    assert mirror.asked == [(HTDEMUCS.published, None)]


def test_a_broken_connection_is_gone_on_with(mirror: Mirror) -> None:
    mirror.manners = [breaks_after(70_000), refuses(503), breaks_after(50_000)]
    assert fetch(HTDEMUCS).read_bytes() == CONTENTS[HTDEMUCS.published]
    assert [wanted for _, wanted in mirror.asked] == [
        None,
        "bytes=70000-",
        "bytes=70000-",
        "bytes=120000-",
    ]


def test_what_an_earlier_fetch_left_is_gone_on_with(mirror: Mirror, place: Path) -> None:
    mirror.manners = [breaks_after(70_000), *[refuses(503)] * ATTEMPTS]
    with pytest.raises(WeightsFetchError, match=r"70,000 bytes of it are kept"):
        fetch(HTDEMUCS)
    assert HTDEMUCS.find() is None
    mirror.asked.clear()
    assert fetch(HTDEMUCS).read_bytes() == CONTENTS[HTDEMUCS.published]
    assert mirror.asked == [(HTDEMUCS.published, "bytes=70000-")]
    assert not list(place.glob("*.part"))


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * SIZE, b"x" * (SIZE + 1)])
def test_leftovers_of_another_file_do_no_harm(mirror: Mirror, place: Path, left: bytes) -> None:
    del mirror
    place.mkdir()
    (place / f"{HTDEMUCS.published}.part").write_bytes(left)
    assert fetch(HTDEMUCS).read_bytes() == CONTENTS[HTDEMUCS.published]


def test_a_server_without_ranges_is_asked_from_the_beginning(mirror: Mirror) -> None:
    mirror.ranges = False
    mirror.manners = [breaks_after(70_000)]
    assert fetch(HTDEMUCS).read_bytes() == CONTENTS[HTDEMUCS.published]


@pytest.mark.parametrize(
    ("file", "manner"),
    [
        (HTDEMUCS, gives(b"x" * SIZE)),
        (HTDEMUCS, gives(b"x" * 10 * SIZE)),
        (HTDEMUCS, gives(b"<html>Log in first</html>")),
        (HTDEMUCS, declares(SIZE - 1)),
        (HTDEMUCS, declares(SIZE + 1)),
        (UNNOTED, gives(b"<html>Log in first</html>")),
        (UNNOTED, declares(2 * SIZE)),
    ],
)
def test_what_is_not_the_file_is_refused_and_named(
    mirror: Mirror, place: Path, file: WeightFile, manner: Manner
) -> None:
    mirror.manners = [manner] * ATTEMPTS
    code, out = run("fetch", file.published, "--json")
    assert code == 2
    (row,) = json.loads(out)["weights"]
    assert row["error_type"] == "weights-not-fetched"
    assert file.published in row["error"]
    assert not (place / file.published).exists()
    mirror.manners = []
    assert fetch(file).read_bytes() == CONTENTS[file.published]


def test_what_is_nowhere_is_asked_for_once(mirror: Mirror) -> None:
    del mirror.files[HTDEMUCS.published]
    with pytest.raises(WeightsFetchError, match="404"):
        fetch(HTDEMUCS)
    assert len(mirror.asked) == 1


def test_a_mirror_s_password_is_not_told(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.manners = [refuses(403)]
    monkeypatch.setenv(MIRROR_VARIABLE, mirror.url.replace("//", "//me:secret@"))
    with pytest.raises(WeightsFetchError, match="403") as caught:
        fetch(HTDEMUCS)
    assert "secret" not in str(caught.value)


def test_one_that_cannot_be_had_does_not_hold_up_the_others(mirror: Mirror) -> None:
    del mirror.files[HTDEMUCS.published]
    code, out = run("fetch", HTDEMUCS.published, VOCALS.published, "--json")
    assert code == 1
    assert [row["error"] is None for row in json.loads(out)["weights"]] == [False, True]
    assert verified(VOCALS).is_file()


def test_a_full_disk_is_told(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Full())
    with pytest.raises(DiskFullError, match=DIRECTORY_VARIABLE):
        fetch(HTDEMUCS)
    assert mirror.asked


class _Full:
    free = 0


def test_two_processes_fetch_a_file_once(mirror: Mirror, place: Path, known: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "import stemserve.weights.registry as registry\n"
        "registry.REGISTRY = pathlib.Path(sys.argv.pop(1))\n"
        "from stemserve.__main__ import main\n"
        "main()"
    )
    words = [sys.executable, "-c", program, str(known), "weights", "fetch", HTDEMUCS.published]
    running = [
        subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert len(mirror.asked) == 1
    assert (place / HTDEMUCS.published).read_bytes() == CONTENTS[HTDEMUCS.published]


@pytest.mark.parametrize("damage", ["cut short", "foreign"])
def test_a_damaged_file_is_caught_at_a_look_and_fetched_anew(mirror: Mirror, damage: str) -> None:
    path = fetch(HTDEMUCS)
    path.write_bytes(b"y" * (SIZE if damage == "foreign" else SIZE // 2))
    os.utime(path, ns=(0, 1))  # a file system's clock may stand still for some milliseconds
    with pytest.raises(DamagedWeightsError, match=HTDEMUCS.published):
        verified(HTDEMUCS)
    if damage == "cut short":
        assert "damaged" in (lacks(PRESETS["htdemucs"]) or "")
        assert states()[HTDEMUCS.published] == "damaged"
    assert run("verify", HTDEMUCS.published)[0] == 2
    assert run("fetch", HTDEMUCS.published)[0] == 0
    assert verified(HTDEMUCS).read_bytes() == CONTENTS[HTDEMUCS.published]
    assert run("verify")[0] == 0
    assert len(mirror.asked) == 2


def test_an_unchanged_file_is_read_once(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    del mirror
    path = fetch(HTDEMUCS)
    read: list[Path] = []
    measure = records.measure

    def counted(path: Path) -> str:
        read.append(path)
        return measure(path)

    monkeypatch.setattr(records, "measure", counted)
    assert verified(HTDEMUCS) == path
    assert not read
    os.utime(path, ns=(0, path.stat().st_mtime_ns // 10**9 * 10**9))  # as in an image's layer
    verified(HTDEMUCS)
    assert not read
    os.utime(path, ns=(0, 1))
    verified(HTDEMUCS)
    verified(HTDEMUCS)
    assert read == [path]


def test_a_file_of_unknown_digest_must_stay_what_it_was(mirror: Mirror) -> None:
    del mirror
    path = fetch(UNNOTED)
    assert verified(UNNOTED) == path
    path.write_bytes(b"z" * SIZE)
    os.utime(path, ns=(0, 1))
    with pytest.raises(DamagedWeightsError, match="Kim_Inst"):
        verified(UNNOTED)


def test_weights_of_your_own_are_taken_by_a_name_that_tells_the_truth(place: Path) -> None:
    place.mkdir()
    content = b"weights trained further"
    true, false = hashlib.sha256(content).hexdigest()[:8], "0" * 8
    (place / f"Kim_Inst-{true}.onnx").write_bytes(content)
    (place / f"955717e8-{false}.th").write_bytes(content)
    assert verified(UNNOTED).name == f"Kim_Inst-{true}.onnx"
    with pytest.raises(DamagedWeightsError, match=false):
        verified(HTDEMUCS)


def test_only_what_is_granted_is_fetched_when_that_is_asked(mirror: Mirror) -> None:
    code, out = run("fetch", "--all", "--licence", "granted", "--json")
    assert code == 1
    errors = {row["file"]: row["error"] for row in json.loads(out)["weights"]}
    assert errors.pop(VOCALS.published) is None
    for file in (HTDEMUCS.published, UNNOTED.published):
        assert f"{file} (no grant)" in errors[file]
    assert [name for name, _ in mirror.asked] == [VOCALS.published]


def test_a_worker_refuses_what_is_not_granted(tmp_path: Path, place: Path) -> None:
    del place
    with running_worker(tmp_path / "data", licence="granted") as worker:
        worker.wait_ready()
        with worker.client() as client:
            presets = {p["name"]: p for p in client.get("/status").json()["presets"]}
            assert presets["center"]["available"]
            assert presets["center"]["licences"] == []
            (terms,) = presets["htdemucs"]["licences"]
            assert (terms["file"], terms["granted"]) == (HTDEMUCS.published, False)
            assert HTDEMUCS.published in presets["htdemucs"]["lacks"]
            assert "granted" in presets["htdemucs"]["lacks"]
            with pytest.raises(AssertionError, match=r"preset-unavailable.*955717e8"):
                post(client, b"any", preset="htdemucs")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fetch",), "--all"),
        (("fetch", "htdemucs", "--licence", "free"), "granted"),
        (("list", "htdemucks"), "htdemucs"),
    ],
)
def test_a_wrong_word_is_answered_with_help(words: tuple[str, ...], said: str) -> None:
    code, out = run(*words, "--json")
    assert code == 2
    assert said in json.loads(out)["error"]


def test_the_list_is_readable(mirror: Mirror) -> None:
    del mirror
    fetch(VOCALS)
    code, out = run("list")
    assert code == 0
    (line,) = (line for line in out.splitlines() if line.startswith(VOCALS.published))
    assert "htdemucs_ft" in line
    assert "verified" in line
    assert "Nobody has said yes." in out


def test_the_registry_knows_every_file_that_a_preset_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    entries = registry()
    for recipe in PRESETS.values():
        assert {file.published for file in recipe.weights} <= set(entries)
    for name, entry in entries.items():
        assert entry.url.startswith("https://")
        assert entry.url.endswith(f"/{name}")
        assert entry.licence.says
        assert entry.licence.sources
        assert entry.digest_note
        digits = digest_in_name(name)
        if digits is not None:
            assert entry.sha256 is not None
            assert entry.sha256.startswith(digits)
        if entry.sha256 is not None:
            assert len(entry.sha256) == 64
            assert entry.size is not None
