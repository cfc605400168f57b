"""Defaults of one's own, and `stemctl config`, which tells where each comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from platformdirs import user_config_path

from tests.cli.driving import ends, stemctl, tree, write_song


@pytest.fixture
def user(home: Path) -> Path:
    """The user's file, whose folder is there."""
    path = user_config_path("stemctl") / "stemctl.toml"
    assert home in path.parents
    path.parent.mkdir(parents=True)
    return path


def options(cwd: Path) -> dict[str, tuple[object, str]]:
    answer = stemctl("config", "--json", cwd=cwd)
    assert answer.code == 0, answer.out
    return {name: (row["value"], row["from"]) for name, row in answer.json["options"].items()}


def test_the_command_line_counts_most_then_the_environment_the_project_the_user(
    tmp_path: Path, user: Path, fleet: list[str]
) -> None:
    user.write_text("[submit]\nformat = 'mp3'\nstack = 'mine'\nstems = ['vocals', 'drums']\n")
    project = tmp_path / "stemctl.toml"
    project.write_text("[submit]\nformat = 'flac'\nbit-depth = 24\nexclude = ['live']\n")
    here = tmp_path / "deep"
    write_song(here / "in" / "song.wav")
    write_song(here / "in" / "live" / "song.wav")
    seen = options(here)
    assert seen["format"] == ("flac", str(project))
    assert seen["bit-depth"] == ("24", str(project))
    assert seen["exclude"] == (["live"], str(project))
    assert seen["stems"] == ("vocals,drums", str(user))
    assert seen["stack"] == ("mine", str(user))
    assert seen["out"] == ("stems", "default")
    assert ends(stemctl("submit", "in", *fleet, "--json", cwd=here)) == {"song.wav": "done"}
    assert tree(here / "stems") == ["song/drums.flac", "song/vocals.flac"]
    words = ["submit", "in", "--format", "wav", "--bit-depth", "16", "--out", "other"]
    assert stemctl(*words, *fleet, cwd=here).code == 0
    assert tree(here / "other") == ["song/drums.wav", "song/vocals.wav"]


def test_the_environment_counts_more_than_a_file(
    tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.write_text("[submit]\nstack = 'mine'\n")
    monkeypatch.setenv("STEMCTL_STACK", "theirs")
    assert options(tmp_path)["stack"] == ("theirs", "STEMCTL_STACK")
    table = stemctl("config", cwd=tmp_path)
    assert "theirs" in table.out
    assert str(user) in table.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[submit]\nformt = 'wav'\n", "no key in [submit] formt: did you mean format"),
        ("[submt]\n", "no table submt: did you mean submit?"),
        ("submit = 1\n", "write [submit]"),
        ("[submit]\nmono = 'yes'\n", "submit.mono: give true or false"),
        ("[submit]\nformat = true\n", "submit.format: give a text"),
        ("[submit]\nendpoint = ['http://evil']\n", "no key in [submit] endpoint"),
        ("[submit\n", "is no TOML: "),
    ],
)
def test_what_cannot_be_is_told_with_its_file(
    tmp_path: Path, fleet: list[str], text: str, words: str
) -> None:
    file = tmp_path / "stemctl.toml"
    file.write_text(text)
    song = write_song(tmp_path / "song.wav")
    for command in (["config"], ["submit", song, *fleet]):
        answer = stemctl(*command, "--json", cwd=tmp_path)
        assert answer.code == 2
        assert words in answer.json["error"]
        assert str(file) in answer.json["error"]


def test_help_is_given_whatever_a_file_says(tmp_path: Path) -> None:
    (tmp_path / "stemctl.toml").write_text("[submit\n")
    assert stemctl("submit", "--help", cwd=tmp_path).code == 0
