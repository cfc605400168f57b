"""Titles and covers go from the input into every format that holds them."""

from __future__ import annotations

from pathlib import Path

import pytest
from stemserve.audio.encode import Encoder, Encoding
from stemserve.audio.tags import Cover, Tags, read_tags
from stemserve.schema import StemFormat

from tests.service.sounds import cover_picture, tones, write_audio

FORMATS = [StemFormat.FLAC, StemFormat.MP3, StemFormat.OPUS, StemFormat.M4A]
FIELDS = (
    ("title", "Ü ber – 歌"),
    ("artist", "Somebody"),
    ("album", "An Album"),
    ("track", "3"),
    ("date", "2001"),
    ("genre", "Noise"),
)


def tagged(path: Path, stem_format: StemFormat, tags: Tags) -> Path:
    """A short sound with tags."""
    with Encoder(path, Encoding(stem_format), 48000, 2, tags) as encoder:
        encoder.write(tones(10_000))
    return path


@pytest.mark.parametrize("origin", FORMATS)
@pytest.mark.parametrize("result", FORMATS)
@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_tags_and_cover_survive(
    tmp_path: Path, origin: StemFormat, result: StemFormat, codec: str
) -> None:
    tags = Tags(FIELDS, Cover(codec, 64, 48, cover_picture(codec, 64, 48)))
    first = read_tags(tagged(tmp_path / "first", origin, tags))
    second = read_tags(tagged(tmp_path / "second", result, first))
    assert first == tags
    assert second == tags


def test_a_file_without_tags_has_none(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tones(100), 44100, "pcm_s16le")
    assert read_tags(path) == Tags()
    path.write_bytes(b"no audio at all")
    assert read_tags(path) == Tags()


def test_letters_of_an_unknown_alphabet_do_no_harm(tmp_path: Path) -> None:
    """RIFF does not say how its texts are encoded: old ones are in whatever the writer used."""
    content = write_audio(tmp_path / "a.wav", tones(100), 44100, "pcm_s16le").read_bytes()
    text = "Größe".encode("latin-1") + b"\0"
    info = b"INFOINAM" + len(text).to_bytes(4, "little") + text
    at = content.index(b"data")
    chunk = b"LIST" + len(info).to_bytes(4, "little") + info
    head = content[:4] + (len(content) - 8 + len(chunk)).to_bytes(4, "little") + content[8:at]
    (tmp_path / "a.wav").write_bytes(head + chunk + content[at:])
    assert dict(read_tags(tmp_path / "a.wav").fields)["title"].startswith("Gr")
