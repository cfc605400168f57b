"""Rules of the worker's parts that hold for any value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemserve.errors import SettingsError, UnknownNameError
from stemserve.jobs.job import JobContent, resolve
from stemserve.jobs.jobfiles import JobFiles
from stemserve.names import nearest
from stemserve.schema import MIX, JobRequest, Preset, derived_stems
from stemserve.settings import Settings

NAMES = st.text(alphabet="abcdefgh_", min_size=1, max_size=8)
PRESETS = [
    Preset(
        name="center",
        description="",
        stems=["vocals", "instrumental", "drums", "bass", "other"],
        available=True,
    )
]


@given(lines=st.lists(st.text()), limit=st.integers(4, 40))
def test_a_log_read_in_pieces_is_the_log(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], limit: int
) -> None:
    files = JobFiles(tmp_path_factory.mktemp("job"))
    for line in lines:
        files.log(line)
    pieces, offset, end = [], 0, -1
    while offset != end:
        end = offset
        piece, offset = files.read_log(offset, limit)
        pieces.append(piece)
    whole = "".join(pieces)
    assert whole == files.read_log(0)[0]
    assert offset == len(whole.encode())
    for line in lines:
        assert line.encode(errors="backslashreplace").decode() in whole


@given(name=NAMES, choices=st.lists(NAMES, unique=True))
def test_the_nearest_names_are_all_names_the_same_first(name: str, choices: list[str]) -> None:
    found = nearest(name, choices)
    assert sorted(found) == sorted(choices)
    if name in choices:
        assert found[0] == name


@given(stems=st.lists(st.sampled_from(PRESETS[0].stems), min_size=1, max_size=16), data=st.data())
def test_the_order_of_stems_makes_no_other_job(stems: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(stems))
    first, second = (
        resolve(JobRequest(input_sha256="0" * 64, stems=names), PRESETS, "center")
        for names in (stems, [*shuffled, stems[0]][:16])
    )
    assert first.digest() == second.digest()
    assert set(first.stems) == set(stems)
    assert len(first.stems) == len(set(stems))


@given(
    cuts=st.lists(st.integers(1, 10**6), min_size=1, max_size=5, unique=True).map(sorted),
    spaces=st.text(alphabet=" ", max_size=3),
)
def test_the_same_cuts_in_other_words_make_no_other_job(cuts: list[int], spaces: str) -> None:
    plain = ",".join(str(cut) for cut in cuts)
    fancy = f"{spaces},{spaces}".join(f"{cut}.0" for cut in cuts) + ","
    first, second = (
        resolve(JobRequest(input_sha256="0" * 64, interval_cut=text), PRESETS, "center")
        for text in (plain, fancy)
    )
    assert first.digest() == second.digest()


def test_a_job_from_before_there_were_ranges_is_still_the_same_job() -> None:
    """Its content is stored as text: what is new must not show in it by its default."""
    content = resolve(JobRequest(input_sha256="0" * 64), PRESETS, "center")
    assert json.loads(content.text()) == {
        "input_url": None,
        "input_sha256": "0" * 64,
        "preset": "center",
        "stems": ["vocals", "instrumental"],
        "format": "wav",
        "bit_depth": None,
        "mono": False,
        "template_mp3": True,
        "cut_points": [],
    }
    assert JobContent.model_validate_json(content.text()) == content


@given(name=st.text(alphabet="abcdefgh", min_size=1, max_size=8))
def test_an_unknown_stem_names_all_there_are(name: str) -> None:
    request = JobRequest(input_sha256="0" * 64, stems=[f"{name}_x"])
    with pytest.raises(UnknownNameError) as caught:
        resolve(request, PRESETS, "center")
    known = [*PRESETS[0].stems, *derived_stems(PRESETS[0].stems), MIX]
    assert sorted(caught.value.choices) == sorted(known)


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSERVE_QUEUE_LIMIT", "3")
    monkeypatch.setenv("STEMSERVE_PRESET", "")
    assert Settings.load().queue_limit == 3
    assert Settings.load(queue_limit=5, preset=None).queue_limit == 5
    assert Settings.load().preset == "center"


def test_a_settings_error_quotes_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSERVE_TOKEN", "the-token")
    monkeypatch.setenv("STEMSERVE_PORT", "the-port")
    with pytest.raises(SettingsError, match="port") as caught:
        Settings.load()
    assert "the-" not in str(caught.value)
    assert "the-token" not in repr(Settings.load(port=1))


def test_no_setting_goes_without_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_data_directory_is_the_users_by_default(home: Path) -> None:
    assert home in Settings.load().data_dir.parents
