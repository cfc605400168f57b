"""How near a quote comes to what a run then costs: two runs on an emulated Vast.ai, in real time.

The first run teaches how fast the workers of this machine are and how long the emulated machines
take to boot; the second is quoted, run, and compared with the cloud's own meter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from tests.clouds.clock import Clock
from tests.clouds.machines import RealWorker
from tests.clouds.vast import VastEmulator

REPOSITORY = Path(__file__).parents[2]
RATE = 44100
SONG_S = 180
FIRST, SECOND = 5, 20
"""Songs of the run that teaches, and of the one that is quoted."""

ORDER = ("--cloud", "vast", "--gpu", "RTX 3090", "--preset", "center")
"""One kind of GPU: whatever an emulated machine is said to have, this machine's processor works."""
ONE = ("--count", "1")


def measure() -> dict[str, Any]:
    """Costs in USD; ``actual_over_quote`` is the meter over the quote (goal: 0.9 to 1.1)."""
    place = os.environ.get("TMPDIR", tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(dir=place, prefix="quote-") as name,
        VastEmulator(clock=Clock(1.0), start=RealWorker) as cloud,
    ):
        folder = Path(name)
        run = _Stemctl(folder, cloud)
        first = _songs(folder / "first", FIRST)
        run("run", *first, *ORDER, *ONE, "--out", str(folder / "a"), yes=True)
        songs = _songs(folder / "second", SECOND)
        quote = run("quote", *songs, *ORDER)
        plan = next(plan for plan in quote["plans"] if plan["count"] == 1)
        before = sum(one.usd for one in cloud.ledger.contracts())
        told = run("run", *songs, *ORDER, *ONE, "--out", str(folder / "b"), yes=True)
        paid = sum(one.usd for one in cloud.ledger.contracts()) - before
        left = len(cloud.ledger.alive())
    return {
        "audio_s": quote["audio_seconds"],
        "quoted_usd": plan["usd"],
        "quoted_s": round(plan["hours"] * 3600, 1),
        "actual_usd": paid,
        "told_usd": told["usd"],
        "actual_s": told["seconds"],
        "actual_over_quote": round(paid / plan["usd"], 3),
        "machines_left": left,
    }


class _Stemctl:
    """stemctl with the project, the cloud and a home of this bench alone."""

    def __init__(self, folder: Path, cloud: VastEmulator) -> None:
        self._environment = os.environ | {
            "HOME": str(folder / "home"),
            "XDG_DATA_HOME": str(folder / "data"),
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            "STEMCTL_IMAGE": "ghcr.io/example/worker:1",
            "STEMCTL_PROJECT": str(folder / "project"),
            "PULUMI_BACKEND_URL": f"file://{folder / 'home'}",
            **cloud.environment(),
        }
        self._environment.pop("PULUMI_HOME", None)
        project = folder / "project"
        (folder / "home").mkdir()
        project.mkdir()
        document = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())
        document.pop("backend")
        (project / "Pulumi.yaml").write_text(yaml.safe_dump(document))
        (project / "infra").symlink_to(REPOSITORY / "infra")
        (project / ".venv").symlink_to(Path(sys.prefix))

    def __call__(self, *words: str, yes: bool = False) -> dict[str, Any]:
        command = [sys.executable, "-m", "stemctl", *words, *(["--yes"] if yes else []), "--json"]
        done = subprocess.run(
            command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        if done.returncode:
            sys.exit(f"{' '.join(words)}: {done.stdout.decode()}")
        told: dict[str, Any] = json.loads(done.stdout)
        return told


def _songs(folder: Path, count: int) -> list[str]:
    """Songs of noise, each of its own."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(count):
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE)
            noise = chance.integers(-8000, 8000, (RATE * SONG_S, 2), dtype=np.int16)
            file.writeframes(noise.tobytes())
    return [str(folder)]
