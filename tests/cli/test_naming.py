"""Places: each track's own, safe on every file system, and the same in every run."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemctl.asked.naming import Source, assign_places

ODD = ["a", "A", "song.wav", "SONG.WAV", "song.flac", "song", "..", "...", ".x", "a (b)", "ß", "ss"]
ODD += ["\u00e9", "e\u0301", "x\udcff", "a\nb", "a\\b", "CON", "a:b", " ", "  a.mp3", "日本.opus"]

names = st.one_of(
    st.sampled_from(ODD),
    st.text(min_size=1, max_size=12).map(lambda text: text.replace("/", "_").replace("\0", "_")),
    st.integers(200, 255).map(lambda length: "n" * (length - 4) + ".wav"),
    st.integers(60, 80).map(lambda length: "語" * length),
)


@st.composite
def sources(draw: st.DrawFn) -> list[Source]:
    """Inputs with names that are meant to clash, and identities that differ."""
    folder = st.lists(names, max_size=2).map(tuple)
    count = draw(st.integers(1, 8))
    made = []
    for number in range(count):
        within = draw(st.booleans())
        folders = draw(folder) if within else ()
        name, above = draw(names), draw(names)
        made.append(Source(folders, name, above, within, f"/{number}/{name}"))
    return made


def as_seen(place: str) -> tuple[str, ...]:
    """A place as a file system sees it that ignores case and normalises."""
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in place.split("/"))


@given(sources())
def test_no_two_tracks_share_a_place_or_lie_in_each_other(tracks: list[Source]) -> None:
    seen = [as_seen(place) for place in assign_places(tracks)]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            shorter = min(len(one), len(other))
            assert one[:shorter] != other[:shorter]


@given(sources())
def test_every_part_is_a_plain_visible_name(tracks: list[Source]) -> None:
    for place in assign_places(tracks):
        assert not PurePosixPath(place).is_absolute()
        for part in place.split("/"):
            assert part
            assert not part.startswith(".")
            assert part == part.strip(" ")
            assert not set(part) & set('\\:*?"<>|\n\0')
            assert len(part.encode()) <= 255  # and so holds no lone surrogate
            assert part == unicodedata.normalize("NFC", part)


@given(sources(), st.randoms(use_true_random=False))
def test_places_do_not_depend_on_the_order_of_the_inputs(
    tracks: list[Source], random: object
) -> None:
    shuffled = list(tracks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    before = dict(zip([t.identity for t in tracks], assign_places(tracks), strict=True))
    after = dict(zip([t.identity for t in shuffled], assign_places(shuffled), strict=True))
    assert before == after


def file(path: str) -> Source:
    folder, _, name = path.rpartition("/")
    return Source((), name, folder.rpartition("/")[2], False, path)


def inside(root: str, path: str) -> Source:
    *folders, name = path.split("/")
    return Source(tuple(folders), name, root, True, f"/{root}/{path}")


@pytest.mark.parametrize(
    ("tracks", "places"),
    [
        ([file("/m/a song.flac")], ["a song"]),
        ([file("/m/no suffix")], ["no suffix"]),
        ([file("/m/.hidden")], ["_hidden"]),
        ([file("/m/v1.2.wav")], ["v1.2"]),
        ([file("/x/song.wav"), file("/y/song.wav")], ["song (x)", "song (y)"]),
        ([file("/x/song.wav"), file("/x/song.mp3")], ["song.wav", "song.mp3"]),
        ([file("/x/Song.wav"), file("/y/song.wav")], ["Song (x)", "song (y)"]),
        ([inside("m", "b/song.wav"), inside("m", "c/song.wav")], ["b/song", "c/song"]),
        ([inside("m", "song.wav"), inside("n", "song.wav")], ["m/song", "n/song"]),
        ([file("/x/b.wav"), inside("m", "b/song.wav")], ["b.wav", "b/song"]),
    ],
)
def test_places_that_people_expect(tracks: Sequence[Source], places: list[str]) -> None:
    assert assign_places(tracks) == places


def test_the_same_name_in_equally_named_folders_is_told_apart() -> None:
    first, second = assign_places([file("/1/x/song.wav"), file("/2/x/song.wav")])
    assert first != second
    assert first.startswith("song (")
    assert second.startswith("song (")
