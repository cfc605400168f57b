"""stemctl as a user runs it: the console script, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LEDGER = ".stemctl.sqlite"
STEMCTL = str(Path(sys.executable).with_name("stemctl"))
TOKEN = "the-token"
DEADLINE_S = 90
RATE = 44100


@dataclass
class Answer:
    """What came of a call."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


def environment(token: str | None = TOKEN) -> dict[str, str]:
    """The environment of a call; ``token`` is the one for ``--endpoint``."""
    return {**os.environ, "COLUMNS": "200"} | ({"STEMCTL_TOKEN": token} if token else {})


def stemctl(
    *arguments: object, cwd: Path | None = None, token: str | None = TOKEN, given: str = ""
) -> Answer:
    """Run stemctl to its end; ``given`` is what it reads from standard input."""
    done = subprocess.run(
        [STEMCTL, *map(str, arguments)],
        cwd=cwd,
        env=environment(token),
        input=given,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert not token or token not in done.stdout + done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)


def endpoints(*urls: str) -> list[str]:
    """The options for workers without a stack."""
    return [word for url in urls for word in ("--endpoint", url)]


def write_song(path: Path, seconds: float = 1.0, pitch: float = 220.0) -> Path:
    """A small stereo wav: a tone in the centre, others at the sides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(RATE * seconds)) / RATE
    tones = [np.sin(2 * np.pi * pitch * step * time) * 0.2 for step in (1.0, 1.5, 2.0)]
    sides = np.stack([tones[0] + tones[1], tones[0] + tones[2]], axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sides * 32767).astype("<i2").tobytes())
    return path


def ends(answer: Answer) -> dict[str, str]:
    """How each track of a run ended, by name."""
    return {track["name"]: track["end"] for track in answer.json["tracks"]}


def tree(folder: Path, leave_out: Sequence[str] = (".stemctl.json",)) -> list[str]:
    """Every file in a folder, hidden ones too, but for the ledger."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (*leave_out, LEDGER)
    )
