"""Files made to break whoever decodes them: each is refused, and the next is served.

They are small and claim to be huge, or they name other files and addresses.
"""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from stemserve.task import Failed, Finished

from tests.service.separating import MODULE_SECONDS, SeparationProcess, separation_process, task
from tests.service.sounds import tones, write_audio


@pytest.fixture(scope="module")
def process() -> Iterator[SeparationProcess]:
    """One process for the module's tests: an attack that ends it fails those after it too."""
    with separation_process(deadline_s=MODULE_SECONDS, OMP_NUM_THREADS="1") as running:
        yield running


def wav(*, channels: int = 1, rate: int = 8000, data: int = 2**32 - 1, sound: bytes = b"") -> bytes:
    """A WAV file of 8 bits that claims ``data`` bytes of sound."""
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels) % 2**32, channels % 2**16, 8)
    head = b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", data) + sound


def flac(total: int) -> bytes:
    """A FLAC file without a frame that claims ``total`` samples at 8 kHz."""
    facts = struct.pack(">HH", 4096, 4096) + bytes(6)
    facts += ((8000 << 44) | (1 << 41) | (15 << 36) | total).to_bytes(8, "big") + bytes(16)
    return b"fLaC" + bytes([0x80]) + len(facts).to_bytes(3, "big") + facts


CLAIMS = {
    "three days of wav": wav(data=2**31, sound=bytes(100)),
    "wav of 65,535 channels": wav(channels=2**16 - 1, sound=bytes(100)),
    "wav of 4 GHz": wav(rate=2**32 - 1, sound=bytes(100)),
    "wav of one sample an hour": wav(rate=0, sound=bytes(100)),
    "three months of flac": flac(2**36 - 1),
    "a tag of 256 MB": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + b"TIT2" * 10,
    "matroska without an end": b"\x1aE\xdf\xa3\x01" + b"\xff" * 7 + bytes(50),
    "ogg of pages of nothing": (b"OggS" + bytes(22) + b"\xff" * 40) * 50,
    "gzip of 100 MB": gzip.compress(bytes(10**8)),
}

REFERENCES = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
    "hls with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:9,\n{url}\n',
    "concat": "ffconcat version 1.0\nfile '{url}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD mediaPresentationDuration="PT9S"><Period><AdaptationSet'
    ' mimeType="audio/mp4"><Representation id="1"><BaseURL>{url}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>",
    "smil": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "{url}">]><smil>&y;</smil>',
}


def refused(process: SeparationProcess, path: Path, out: Path) -> None:
    """It is no audio, which is told in a sentence, and leaves nothing behind."""
    failed = process.outcome(task(path, out))
    assert isinstance(failed, Failed), failed
    assert failed.error_type == "not-audio", failed
    assert "Traceback" not in failed.error
    assert len(failed.error) < 500
    assert not list(out.glob("*"))


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_small_file_that_claims_to_be_huge(
    process: SeparationProcess, tmp_path: Path, claim: str
) -> None:
    path = tmp_path / "input"
    path.write_bytes(CLAIMS[claim])
    refused(process, path, tmp_path / "out")


@pytest.mark.parametrize(
    ("box", "entry"),
    [
        (b"stts", struct.pack(">III", 1, 2**31 - 1, 2**31 - 1)),
        (b"stts", struct.pack(">III", 2**32 - 1, 1, 1024)),
        (b"stsz", struct.pack(">III", 2**31 - 1, 2**32 - 1, 0)),
        (b"stsc", struct.pack(">IIII", 2**32 - 1, 1, 2**32 - 1, 1)),
        (b"stco", struct.pack(">II", 2**32 - 1, 2**32 - 1)),
    ],
)
def test_an_mp4_whose_tables_lie(
    process: SeparationProcess, tmp_path: Path, box: bytes, entry: bytes
) -> None:
    sound = tones(44100)
    path = write_audio(tmp_path / "in.m4a", sound, 44100, "aac", sample_format="fltp")
    content = bytearray(path.read_bytes())
    at = content.index(box) + 8
    content[at : at + len(entry)] = entry
    path.write_bytes(content)
    outcome = process.outcome(task(path, tmp_path / "out"))
    if isinstance(outcome, Failed):
        assert outcome.error_type == "not-audio", outcome
    else:
        assert outcome.duration_seconds < 2


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("scheme", ["", "file:", "http:"])
def test_a_file_that_names_another_does_not_bring_it_in(
    process: SeparationProcess, tmp_path: Path, kind: str, scheme: str
) -> None:
    secret = write_audio(tmp_path / "secret.wav", tones(44100), 44100, "pcm_s16le")
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        web = f"http://127.0.0.1:{inside.getsockname()[1]}/secret.wav"
        path = tmp_path / "input"
        path.write_text(
            REFERENCES[kind].format(url=web if scheme == "http:" else f"{scheme}{secret}")
        )
        refused(process, path, tmp_path / "out")
        with pytest.raises(BlockingIOError):
            inside.accept()


def test_the_next_file_is_served(process: SeparationProcess, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "in.wav", tones(44100), 44100, "pcm_s16le")
    assert isinstance(process.outcome(task(path, tmp_path / "out")), Finished)
