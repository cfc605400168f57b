"""What is done, what is in the way, and how a track gets to its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stemctl.asked.track import Track
from stemctl.asked.wanted import Wanted
from stemctl.errors import InputError
from stemctl.places.outputs import (
    RECORD,
    Origin,
    Record,
    file_origin,
    is_done,
    put_in_place,
    url_origin,
)
from stemctl.places.staging import Staging
from stemserve.schema import BitDepth, ResultFile, StemFormat

WANTED = Wanted(
    preset="center", stems=("vocals", "drums"), format=StemFormat.WAV, bit_depth=BitDepth.B16
)
FLAC = WANTED.model_copy(update={"format": StemFormat.FLAC})


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(b"a song")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def track(
    song: Path | None, wanted: Wanted = WANTED, place: str = "song", url: str | None = None
) -> Track:
    """A track that goes to a folder, or by a pattern with a ``*`` for the stem."""
    if "*" in place:
        files = [place.replace("*", name.partition(".")[0]) for name in wanted.file_names]
    else:
        files = [f"{place}/{name}" for name in wanted.file_names]
    return Track("song", place, wanted, tuple(files), song, url)


def bring(
    out: Path, origin: Origin, wanted: Wanted = WANTED, text: str = "sound", place: str = "song"
) -> Path:
    """Put a finished track at its place."""
    with Staging(out) as staging:
        staged = staging.track("job")
        files = []
        for stem, name in zip(wanted.stems, wanted.file_names, strict=True):
            (staged / name).write_text(text)
            files.append(ResultFile(name=name, stem=stem, size=len(text), sha256="0" * 64))
        record = Record(wanted=wanted, origin=origin, files=tuple(files))
        put_in_place(staged, out, track(None, wanted, place), record)
    return out / place


def done(place: Path, song: Path, wanted: Wanted = WANTED, *, overwrite: bool = False) -> bool:
    return is_done(place.parent, track(song, wanted, place.name), overwrite=overwrite)


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_track_is_done_once_all_of_it_is_there(song: Path, out: Path) -> None:
    assert not done(out / "song", song)
    place = bring(out, file_origin(song))
    assert done(place, song)
    assert listing(place) == [RECORD, "drums.wav", "vocals.wav"]
    assert listing(out) == ["song"]


def test_the_same_bytes_with_another_time_are_the_same_input(song: Path, out: Path) -> None:
    place = bring(out, file_origin(song))
    os.utime(song, (1, 1))
    assert done(place, song)


def test_a_stem_that_was_deleted_is_made_again_beside_what_is_there(song: Path, out: Path) -> None:
    place = bring(out, file_origin(song))
    (place / "drums.wav").unlink()
    (place / "my notes.txt").write_text("keep")
    assert not done(place, song)
    bring(out, file_origin(song))
    assert done(place, song)
    assert (place / "my notes.txt").read_text() == "keep"


def test_a_changed_stem_another_request_and_another_input_are_left_alone(
    song: Path, out: Path, tmp_path: Path
) -> None:
    place = bring(out, file_origin(song))
    with pytest.raises(InputError, match=r"holds vocals, drums \(center, wav 16 bit\).*overwrite"):
        done(place, song, FLAC)
    other = tmp_path / "other.wav"
    other.write_bytes(b"a gong")
    with pytest.raises(InputError, match="another input"):
        done(place, other)
    (place / "drums.wav").write_text("mixed by hand")
    with pytest.raises(InputError, match="changed"):
        done(place, song)
    assert not done(place, song, overwrite=True)


def test_files_of_someone_else_are_left_alone(song: Path, out: Path) -> None:
    (out / "song").mkdir(parents=True)
    (out / "song" / "vocals.wav").write_text("mine")
    with pytest.raises(InputError, match="not stemctl's"):
        done(out / "song", song)
    assert not done(out / "song", song, overwrite=True)


def test_a_folder_of_folders_is_not_in_the_way(song: Path, out: Path) -> None:
    (out / "song" / "deeper").mkdir(parents=True)
    assert not done(out / "song", song)
    assert done(bring(out, file_origin(song)), song)


def test_a_place_that_is_a_link_to_a_folder_is_used(song: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "song").symlink_to(tmp_path / "elsewhere")
    assert done(bring(out, file_origin(song)), song)
    assert listing(tmp_path / "elsewhere") == [RECORD, "drums.wav", "vocals.wav"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_way_is_never_replaced(song: Path, out: Path, *, overwrite: bool) -> None:
    out.mkdir()
    (out / "song").write_text("mine")
    with pytest.raises(InputError, match="in the way"):
        done(out / "song", song, overwrite=overwrite)
    with pytest.raises(InputError, match="in the way"):
        is_done(out, track(song, place="song/deeper"), overwrite=overwrite)


def test_overwriting_removes_what_was_stemctls_and_nothing_else(song: Path, out: Path) -> None:
    place = bring(out, file_origin(song))
    (place / "cover.jpg").write_text("keep")
    bring(out, file_origin(song), FLAC)
    assert listing(place) == [RECORD, "cover.jpg", "drums.flac", "vocals.flac"]
    assert done(place, song, FLAC)


def test_a_record_that_is_no_record_counts_as_foreign(song: Path, out: Path) -> None:
    place = bring(out, file_origin(song))
    text = (place / RECORD).read_text()
    for spoiled in ("{", text.replace("vocals", "../vocals"), "[]"):
        (place / RECORD).write_text(spoiled)
        with pytest.raises(InputError, match="not stemctl's"):
            done(place, song)


def test_a_url_is_known_again_and_not_written_down(out: Path) -> None:
    url = "https://host.example/song.mp3?token=hush"
    place = bring(out, url_origin(url))
    assert is_done(out, track(None, url=url), overwrite=False)
    with pytest.raises(InputError, match="another input"):
        is_done(out, track(None, url=url + "2"), overwrite=False)
    assert "hush" not in (place / RECORD).read_text()


def test_a_run_clears_away_what_a_killed_one_left_and_not_what_a_live_one_has(out: Path) -> None:
    left = out / ".stemctl-left"
    left.mkdir(parents=True)
    (left / "half.wav").write_text("half")
    (left / "lock").touch()
    with Staging(out) as first, Staging(out) as second:
        assert first.track("a").is_dir()
        assert second.track("a").is_dir()
        assert not left.exists()
    assert listing(out) == []


def test_an_output_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), Staging(tmp_path / "file" / "out"):
        pass


SPREAD = "*/song.wav"


def test_spread_stems_are_known_again_and_only_what_is_missing_is_made(
    song: Path, out: Path
) -> None:
    bring(out, file_origin(song), place=SPREAD)
    assert (out / "vocals" / "song.wav").read_text() == "sound"
    spread = track(song, place=SPREAD)
    assert is_done(out, spread, overwrite=False)
    (out / "drums" / "song.wav").unlink()
    assert not is_done(out, spread, overwrite=False)
    bring(out, file_origin(song), place=SPREAD)
    assert is_done(out, spread, overwrite=False)
    (out / "drums" / "song.wav").write_text("mixed by hand")
    with pytest.raises(InputError, match="changed"):
        is_done(out, spread, overwrite=False)


def test_a_cut_between_two_spread_files_is_ours_to_go_on(
    song: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def until_drums(self: Path, target: Path) -> Path:
        if Path(target).parent.name == "drums":
            raise OSError("pulled out")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", until_drums)
    with pytest.raises(OSError, match="pulled out"):
        bring(out, file_origin(song), place=SPREAD)
    monkeypatch.undo()
    assert (out / "vocals" / "song.wav").read_text() == "sound"
    assert not is_done(out, track(song, place=SPREAD), overwrite=False)


def test_a_spread_file_of_someone_else_is_left_alone(song: Path, out: Path) -> None:
    (out / "drums").mkdir(parents=True)
    (out / "drums" / "song.wav").write_text("mine")
    spread = track(song, place=SPREAD)
    with pytest.raises(InputError, match="not stemctl's"):
        is_done(out, spread, overwrite=False)
    assert not is_done(out, spread, overwrite=True)
    (out / "vocals").write_text("in the way")
    with pytest.raises(InputError, match="in the way"):
        is_done(out, spread, overwrite=True)


def test_overwriting_spread_stems_removes_those_that_are_not_wanted_any_more(
    song: Path, out: Path
) -> None:
    bring(out, file_origin(song), place=SPREAD)
    fewer = WANTED.model_copy(update={"stems": ("vocals",)})
    with pytest.raises(InputError, match="holds vocals, drums"):
        is_done(out, track(song, fewer, SPREAD), overwrite=False)
    bring(out, file_origin(song), fewer, place=SPREAD)
    assert is_done(out, track(song, fewer, SPREAD), overwrite=False)
    assert not (out / "drums" / "song.wav").exists()


def test_what_was_taken_away_whole_is_no_obstacle(song: Path, out: Path) -> None:
    bring(out, file_origin(song), place=SPREAD)
    for stem in ("vocals", "drums"):
        (out / stem / "song.wav").unlink()
    other = WANTED.model_copy(update={"stems": ("vocals",)})
    assert not is_done(out, track(song, other, SPREAD), overwrite=False)
