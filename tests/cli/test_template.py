"""Patterns for stems: each path safe on every file system, and no file written twice."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemctl.asked.naming import LONGEST_PART, Source
from stemctl.asked.template import FIELDS, parse_template
from stemctl.asked.wishes import Wishes
from stemctl.errors import InputError
from stemctl.inputs.find import Song
from stemctl.inputs.plan import make_plan

from tests.cli.test_naming import as_seen, names, sources
from tests.cli.test_wanted import CENTER, status

SONG = Source(("disc 2", "live"), "My Song.flac", "album", True, "/album/disc 2/live/My Song.flac")

patterns = st.lists(
    st.one_of(st.sampled_from([f"{{{field}}}" for field in FIELDS]), st.sampled_from(["/", " - "])),
    max_size=6,
).map(lambda parts: "".join(parts).strip("/ -").replace("//", "/") + "/{stem}.{ext}")


def paths(sources_: list[Source], pattern: str) -> list[str]:
    """Every file that a run over these inputs would write."""
    wishes = Wishes(output=parse_template(pattern))
    songs = [Song(s.name, f"p{i}", s, wishes, url=f"http://x/{i}") for i, s in enumerate(sources_)]
    plan = make_plan(songs, {"a": status(CENTER)}, granted=False)
    assert len({track.place for track in plan.tracks}) == len(plan.tracks)
    return [file for track in plan.tracks for file in track.files]


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{parent}/{track}/{stem}.{ext}", "live/My Song/vocals.wav"),
        ("{stem}/{folders}/{name}.{ext}", "vocals/disc 2/live/My Song.flac.wav"),
        ("{preset}/{folders}-{stem}.{ext}", "center/disc 2 - live-vocals.wav"),
        ("{track}", "My Song/vocals.wav"),
        ("stems of {track}/", "stems of My Song/vocals.wav"),
    ],
)
def test_fields_are_filled_in(pattern: str, path: str) -> None:
    assert parse_template(pattern).path(SONG, "center", "vocals", "wav") == path


def test_what_is_filled_in_is_not_read_again_and_leads_nowhere() -> None:
    odd = Source(("..",), "{stem}/x\n.wav", "/", False, "1")
    assert parse_template("{parent}/{folders}/{track}").path(odd, "center", "vocals", "wav") == (
        "_/_/{stem}_x_/vocals.wav"
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{trak}/{stem}.{ext}", r"no field trak: did you mean track\?"),
        ("/tmp/{stem}.{ext}", "within --out"),
        ("../{stem}.{ext}", "no name that every file system"),
        ("a//{stem}.{ext}", "no name that every file system"),
        (".hidden/{stem}.{ext}", "no name that every file system"),
        ("{stem}.wav", r"end in \.\{ext\}"),
        ("{stem}{.{ext}", "needs its"),
        ("", "within --out"),
    ],
)
def test_patterns_that_cannot_be_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_template(pattern)


@given(st.text())
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        template = parse_template(text)
    except InputError:
        return
    path = template.path(SONG, "center", "vocals", "wav")
    assert path.endswith(".wav")
    assert not path.startswith("/")
    assert all(part not in ("", ".", "..") for part in path.split("/"))


@given(sources(), patterns)
def test_no_two_files_are_one_anywhere_or_nothing_is_begun(
    tracks: list[Source], pattern: str
) -> None:
    try:
        written = paths(tracks, pattern)
    except InputError:
        return
    seen = [as_seen(path) for path in written]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            shorter = min(len(one), len(other))
            assert one[:shorter] != other[:shorter]
    for path in written:
        assert path.endswith(".wav"), "the suffix is never cut off"
        for part in path.split("/"):
            assert part
            assert not part.startswith(".")
            assert len(part.encode()) <= LONGEST_PART


@given(names, names)
def test_inputs_that_only_some_file_systems_tell_apart_collide(one: str, other: str) -> None:
    made = [Source((), name + ".wav", "x", False, name) for name in (one, other)]
    same = (
        unicodedata.normalize("NFC", one).casefold()
        == unicodedata.normalize("NFC", other).casefold()
    )
    if same:
        with pytest.raises(InputError, match="same place"):
            paths(made, "{track}")


def test_a_file_where_another_needs_a_folder_is_a_collision() -> None:
    made = [Source((), "a.wav", "x", False, "1"), Source((), "vocals.wav", "a.wav", False, "2")]
    assert paths(made, "{track}")
    wishes = [
        Wishes(output=parse_template("{track}.{stem}.{ext}")),
        Wishes(output=parse_template("a.vocals.wav/{track}")),
    ]
    songs = [
        Song(s.name, s.name, s, wish, url="http://x/y")
        for s, wish in zip(made, wishes, strict=True)
    ]
    with pytest.raises(InputError, match="within the other"):
        make_plan(songs, {"a": status(CENTER)}, granted=False)
