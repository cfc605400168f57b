"""Arguments become tracks: folders with all in them, odd names, and what cannot be used."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from stemctl.asked.filter import Filter
from stemctl.asked.wanted import Wanted
from stemctl.asked.wishes import Wishes
from stemctl.errors import InputError
from stemctl.inputs.find import NO_AUDIO, Inputs, find_inputs
from stemctl.places.outputs import RECORD, Origin, Record
from stemserve.schema import ResultFile, StemFormat

OUT = Path("out")


def put(path: Path, text: str = "sound") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(*arguments: Path | str, out: Path = OUT) -> Inputs:
    return find_inputs([str(argument) for argument in arguments], out, Wishes())


def places(inputs: Inputs) -> list[str]:
    return [song.place for song in inputs.songs]


def test_a_folder_gives_its_audio_with_its_folders(tmp_path: Path) -> None:
    for name in ("one.wav", "deep/er/two.FLAC", "notes.txt", "cover.jpg", "Größe 日本.opus"):
        put(tmp_path / "in" / name)
    assert places(found(tmp_path / "in")) == ["Größe 日本", "one", "deep/er/two"]


def test_hidden_files_the_output_and_stems_made_before_are_no_inputs(tmp_path: Path) -> None:
    put(tmp_path / "song.wav")
    put(tmp_path / "._song.wav")
    put(tmp_path / ".trash/old.wav")
    put(tmp_path / "out/other/vocals.wav")
    put(tmp_path / "earlier/song/vocals.wav")
    put(tmp_path / "earlier/song" / RECORD)
    assert places(found(tmp_path, out=tmp_path / "out")) == ["song"]


def test_a_file_named_itself_is_taken_whatever_it_is_called(tmp_path: Path) -> None:
    assert places(found(put(tmp_path / "take 7.xyz"))) == ["take 7"]


def test_one_file_by_several_ways_is_one_track(tmp_path: Path) -> None:
    song = put(tmp_path / "in" / "song.wav")
    (tmp_path / "in" / "z link.wav").symlink_to(song)
    assert places(found(song, tmp_path / "in", tmp_path / "in" / ".." / "in" / "song.wav")) == [
        "song"
    ]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a" / "song.wav")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "b").symlink_to(tmp_path / "in" / "a", target_is_directory=True)
    (tmp_path / "in" / "self.wav").symlink_to(tmp_path / "in" / "self.wav")
    inputs = found(tmp_path / "in")
    assert places(inputs) == ["a/song"]
    assert [Path(bad.name).name for bad in inputs.unusable] == ["self.wav"]


def test_what_cannot_be_used_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    put(tmp_path / "empty.wav", "")
    os.mkfifo(tmp_path / "pipe.wav")
    good = put(tmp_path / "good.wav")
    inputs = found(
        tmp_path / "empty.wav", tmp_path / "pipe.wav", tmp_path / "nowhere.wav", "ftp://x/a", good
    )
    assert places(inputs) == ["good"]
    reasons = {Path(bad.name).name: bad.reason for bad in inputs.unusable}
    assert reasons["empty.wav"] == "is empty"
    assert reasons["pipe.wav"] == "is no file"
    assert reasons["nowhere.wav"].startswith("is not there")
    assert "only http, https and s3 URLs" in reasons["a"]


def _find_as_nobody(root: str, answer: multiprocessing.SimpleQueue[Inputs]) -> None:
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    answer.put(find_inputs([root], Path(root) / "out", Wishes()))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder


def test_an_unreadable_folder_and_file_are_told_and_the_rest_goes_on(open_folder: Path) -> None:
    put(open_folder / "locked/a.wav")
    put(open_folder / "secret.wav").chmod(0)
    put(open_folder / "open/b.wav")
    (open_folder / "locked").chmod(0)
    # Root may read everything, so another user has to look.
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.SimpleQueue[Inputs] = context.SimpleQueue()
    child = context.Process(target=_find_as_nobody, args=(str(open_folder), answer))
    child.start()
    child.join(30)
    (open_folder / "locked").chmod(0o755)
    assert child.exitcode == 0
    inputs = answer.get()
    assert places(inputs) == ["open/b"]
    assert {Path(bad.name).name for bad in inputs.unusable} == {"locked", "secret.wav"}
    assert all("may not be read" in bad.reason for bad in inputs.unusable)


def test_folders_are_filtered_by_names_and_paths(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "live/a.flac", "demo/deep/b.flac", "demo/b.flac"):
        put(tmp_path / name)

    def kept(include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
        only = Filter(tuple(include), tuple(exclude))
        return [song.name for song in find_inputs([str(tmp_path)], OUT, Wishes(), only=only).songs]

    assert kept(["*.flac"]) == ["a.flac", "b.flac", "b.flac", "a.flac"]
    assert kept(["*.flac"], ["live"]) == ["a.flac", "b.flac", "b.flac"]
    assert kept(exclude=["demo/*", "live/"]) == ["a.flac", "a.wav"]
    assert kept(["demo/*"]) == ["b.flac", "b.flac"]


def test_a_pattern_in_quotes_finds_audio_with_its_folders(tmp_path: Path) -> None:
    for name in ("in/a.wav", "in/deep/b.flac", "in/deep/er/c.flac", "in/x.txt", "in/.h/d.flac"):
        put(tmp_path / name)
    put(tmp_path / "in" / "a [live].flac")
    assert places(found(tmp_path / "in" / "**" / "*.flac")) == ["a [live]", "deep/b", "deep/er/c"]
    assert places(found(tmp_path / "in" / "a*")) == ["a [live]", "a"]
    assert places(found(tmp_path / "in" / "a [live].flac")) == ["a [live]"], "it is there itself"
    put(tmp_path / "in" / "done" / "s" / "vocals.flac")
    put(tmp_path / "in" / "done" / "s" / RECORD)
    assert len(places(found(tmp_path / "in" / "**" / "*.flac"))) == 3
    [bad] = found(tmp_path / "in" / "*.mp3").unusable
    assert "matches no audio" in bad.reason
    [bad] = found(tmp_path / "in" / "**.mp3").unusable
    assert bad.reason.startswith(("is no pattern", "matches no audio"))


def test_one_input_with_two_wishes_is_two_songs_and_with_one_is_one(tmp_path: Path) -> None:
    put(tmp_path / "song.wav")
    table = put(tmp_path / "list.csv", "input,stems\nsong.wav,\nsong.wav,drums\nsong.wav,drums\n")
    inputs = found(table)
    assert [song.wishes.stems for song in inputs.songs] == [(), ("drums",)]
    assert len(set(places(inputs))) == 2


def test_no_audio_at_all_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "in/notes.txt")
    with pytest.raises(InputError, match=r"no audio in .*name files"):
        found(tmp_path / "in")


def test_urls_are_named_after_their_last_part() -> None:
    inputs = found(
        "https://host.example/music/My%20Song.mp3?token=hush",
        "https://host.example/",
        "http://b/s.wav",
    )
    assert places(inputs) == ["My Song", "host", "s"]
    assert [song.url for song in inputs.songs][2] == "http://b/s.wav"
    assert "hush" not in str([(song.name, song.place) for song in inputs.songs])


def test_urls_with_the_same_last_part_are_told_apart() -> None:
    inputs = found("https://a.example/s.wav", "https://b.example/s.wav", "https://b.example/s.wav")
    assert places(inputs) == ["s (a.example)", "s (b.example)"]


def test_a_name_that_is_no_text_is_shown_and_placed(tmp_path: Path) -> None:
    try:
        put(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    except OSError:
        return  # this file system has no such names
    inputs = found(tmp_path)
    assert places(inputs) == ["caf_"]
    inputs.songs[0].name.encode()


def test_a_folder_may_be_input_and_output_at_once(tmp_path: Path) -> None:
    put(tmp_path / "song.wav")
    put(tmp_path / "done/vocals.wav")
    put(tmp_path / "done" / RECORD)
    assert places(found(tmp_path, out=tmp_path)) == ["song"]
    assert places(found(f"{tmp_path}/*.wav", out=tmp_path)) == ["song"]
    put(tmp_path / "in/out/left.wav")
    assert places(found(tmp_path / "in", tmp_path, out=tmp_path / "in/out")) == ["song"]


def test_what_a_pattern_has_placed_is_no_input(tmp_path: Path) -> None:
    wanted = Wanted(preset="center", stems=("vocals",), format=StemFormat.WAV, bit_depth=None)
    result = ResultFile(name="vocals.wav", stem="vocals", size=5, sha256="0" * 64)
    record = Record(
        wanted=wanted, origin=Origin(sha256="0" * 64), files=(result,), places=("song/voice.wav",)
    )
    put(tmp_path / "earlier/.stemctl/1.json", record.model_dump_json())
    put(tmp_path / "earlier/.stemctl/2.json", "{")
    put(tmp_path / "earlier/song/voice.wav")
    put(tmp_path / "earlier/song/other.wav")
    assert places(found(tmp_path / "earlier")) == ["song/other"]
    assert places(found(f"{tmp_path}/earlier/*/*.wav")) == ["song/other"]


def test_a_folder_with_nothing_in_it_is_told_beside_others(tmp_path: Path) -> None:
    put(tmp_path / "songs/song.wav")
    (tmp_path / "none").mkdir()
    inputs = found(tmp_path / "songs", tmp_path / "none")
    assert places(inputs) == ["song"]
    assert [(Path(bad.name).name, bad.reason) for bad in inputs.unusable] == [("none", NO_AUDIO)]


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example:99999/s.wav?hush",
        "http://exa mple.com/s.wav?hush",
        "http://[host/s.wav?hush",
        "http://host.example/\ud800.wav?hush",
        "ftp://me:hush@host.example/s.wav?hush",
    ],
)
def test_a_url_that_cannot_be_is_told_without_its_secrets(tmp_path: Path, url: str) -> None:
    inputs = found(put(tmp_path / "song.wav"), url)
    assert places(inputs) == ["song"]
    [bad] = inputs.unusable
    assert "URL" in bad.reason
    assert "hush" not in bad.name


def test_a_link_to_itself_is_told_also_behind_a_pattern(tmp_path: Path) -> None:
    put(tmp_path / "song.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    assert places(found(f"{tmp_path}/*.wav")) == ["song"]
