"""Manifests: rows with wishes of their own, and all rows that cannot be, told at once."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemctl.asked.wishes import Wishes, read_wishes
from stemctl.errors import InputError
from stemctl.inputs.find import find_inputs
from stemctl.inputs.manifest import read_manifest
from stemserve.schema import BitDepth, Clip, Range, StemFormat

BASE = read_wishes({"preset": "center", "bit-depth": "24", "stems": "drums"}, Wishes())


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_a_row_has_its_own_wishes_and_else_those_of_the_flags(tmp_path: Path) -> None:
    table = write(
        tmp_path / "list.csv",
        "\ufeffInput,Format,bit_depth,stems,output,mono,range,clip,strict\r\n"
        'a.wav,,,"vocals, bass",,,,,\r\n'
        "\r\n"
        "b.wav,flac,,,albums/{track},yes,1:00-,clamp,no\r\n",
    )
    one, two = read_manifest(table, BASE)
    assert (one.input, one.where) == ("a.wav", f"{table}, line 2")
    assert one.wishes == BASE.model_copy(update={"stems": ("vocals", "bass")})
    assert (two.input, two.where) == ("b.wav", f"{table}, line 4")
    assert (two.wishes.format, two.wishes.bit_depth) == (StemFormat.FLAC, BitDepth.B16)
    assert (two.wishes.preset, two.wishes.stems) == ("center", ("drums",))
    assert two.wishes.output is not None
    assert two.wishes.output.text == "albums/{track}/{stem}.{ext}"
    assert two.wishes.range == Range(start_seconds=60)
    assert (two.wishes.mono, two.wishes.clip, two.wishes.strict) == (True, Clip.CLAMP, False)


def test_json_lines_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"input": "a.wav", "stems": ["vocals", "bass"], "strict": None},
        {"input": "b.wav", "bit_depth": 16, "mono": True, "strict": False},
    ]
    table = write(tmp_path / "list.jsonl", "\n\n".join(map(json.dumps, rows)) + "\n")
    one, two = read_manifest(table, BASE)
    assert one.wishes.stems == ("vocals", "bass")
    assert (two.where, two.wishes.bit_depth) == (f"{table}, line 3", BitDepth.B16)
    assert (two.wishes.mono, two.wishes.strict) == (True, False)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_the_header_tells_the_separator(tmp_path: Path, separator: str) -> None:
    table = write(tmp_path / "a.csv", f"input{separator}stems\na, b.wav{separator}drums,bass\n")
    [row] = read_manifest(table, BASE)
    assert (row.input, row.wishes.stems) == ("a, b.wav", ("drums", "bass"))


def test_all_rows_that_cannot_be_are_told_with_their_lines(tmp_path: Path) -> None:
    table = write(
        tmp_path / "list.csv",
        "input,format,range\nok.wav,,\na.wav,flak,\n,wav,\n"
        'b.wav,wav,9-3\nc.wav,wav,1-2,more\n"two\nlines.wav",wavv,\n',
    )
    with pytest.raises(InputError) as told:
        read_manifest(table, BASE)
    lines = str(told.value).splitlines()
    assert lines[0] == "nothing is begun, for 5 rows cannot be used:"
    assert [line.partition(": ")[0].strip() for line in lines[1:]] == [
        f"{table}, line {number}" for number in (3, 4, 5, 6, 7)
    ]
    assert "did you mean flac?" in lines[1]
    assert "has no input" in lines[2]
    assert "must be later" in lines[3]
    assert "4 cells for 3 columns" in lines[4]
    other = write(tmp_path / "other.jsonl", "[]")
    with pytest.raises(InputError, match=r"(?s)list\.csv, line 3.*other\.jsonl, line 1"):
        find_inputs([str(table), str(other)], tmp_path / "out", BASE)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "input,forma\na.wav,wav\n", "line 2: .*no column forma: did you mean format"),
        ("a.csv", "song\na.wav\n", "line 1: the header needs input"),
        ("a.csv", "input,input\na,b\n", "each column once"),
        ("a.csv", "input\n", "has no rows"),
        ("a.csv", 'input\n"a.wav\nb.wav', "is no CSV"),
        ("a.jsonl", '{"input": "a"}\n{"input": ', "line 2: is no JSON"),
        ("a.jsonl", '"a.wav"', "is no object"),
        ("a.jsonl", '{"input": ["a"], "stems": {}}', "stems: give a text"),
        ("a.jsonl", '{"input": "a", "bit-depth": 16, "bit_depth": 24}', "two values"),
        ("a.txt", "a", r"ends in \.csv or \.jsonl"),
    ],
)
def test_what_is_no_manifest_is_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_manifest(write(tmp_path / name, text), BASE)


def test_text_of_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes("input\na.wav\nGröße.wav\n".encode("latin-1"))
    with pytest.raises(InputError, match="line 3: is not UTF-8"):
        read_manifest(table, BASE)


def test_a_path_is_meant_from_the_manifests_folder_and_a_missing_file_names_its_row(
    tmp_path: Path,
) -> None:
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists" / "a.wav", "sound")
    table = write(tmp_path / "lists" / "all.csv", "input\na.wav\nnone.wav\nhttp://h/b.wav\n")
    for inputs in (
        find_inputs([str(table)], tmp_path / "out", BASE),
        find_inputs([], tmp_path / "out", BASE, manifests=[table]),
    ):
        assert [song.name for song in inputs.songs] == ["a.wav", "b.wav"]
        assert [bad.name for bad in inputs.unusable] == [f"none.wav ({table}, line 3)"]


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: text == text.strip()
)


@given(names=st.lists(cells, min_size=1, max_size=8))
def test_no_row_is_lost_whatever_its_name(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["input"], *([name] for name in names)])
    lines = "".join(json.dumps({"input": name}) + "\n" for name in names)
    for table in (write(folder / "a.csv", text.getvalue()), write(folder / "a.jsonl", lines)):
        assert [row.input for row in read_manifest(table, BASE)] == names


def test_a_row_that_names_the_format_there_is_keeps_its_bit_depth(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("input,format\na.wav,flac\nb.wav,\nc.wav,wav\n")
    base = read_wishes({"format": "flac", "bit-depth": "24"}, Wishes())
    depths = [row.wishes.bit_depth for row in read_manifest(table, base)]
    assert depths == [BitDepth.B24, BitDepth.B24, BitDepth.F32]
