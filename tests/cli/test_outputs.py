"""What is done, what is in the way, and how a track gets to its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stemctl.errors import InputError
from stemctl.outputs import (
    RECORD,
    Origin,
    Record,
    Staging,
    file_origin,
    is_done,
    put_in_place,
    url_origin,
)
from stemctl.wanted import Wanted
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


def bring(out: Path, origin: Origin, wanted: Wanted = WANTED, text: str = "sound") -> Path:
    """Put a finished track at ``out/song``."""
    with Staging(out) as staging:
        staged = staging.track("job")
        files = []
        for stem, name in zip(wanted.stems, wanted.file_names, strict=True):
            (staged / name).write_text(text)
            files.append(ResultFile(name=name, stem=stem, size=len(text), sha256="0" * 64))
        record = Record(wanted=wanted, origin=origin, files=tuple(files))
        put_in_place(staged, out / "song", record)
    return out / "song"


def done(place: Path, song: Path, wanted: Wanted = WANTED, *, overwrite: bool = False) -> bool:
    return is_done(place, song, None, wanted, overwrite=overwrite)


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
        done(out / "song" / "deeper", song, overwrite=overwrite)


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
    assert is_done(place, None, url, WANTED, overwrite=False)
    with pytest.raises(InputError, match="another input"):
        is_done(place, None, url + "2", WANTED, overwrite=False)
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
