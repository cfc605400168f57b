"""How fast machines separate and how long they take to boot: as measured before, or expected.

What was measured is kept for the user, over all projects: seconds of audio and seconds of work by
GPU and kind of work, and by cloud how long machines boot and what of that costs nothing. What is
expected is a product: the speed of `htdemucs` on an RTX 3090, the GPU's part of that
(`stemfleet.clouds.offers`), and the preset's cost in times of `htdemucs`; or, once another GPU was
measured at the same work, that one's speed and what the two are expected to differ by.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from pydantic import BaseModel, ValidationError
from stemfleet.clouds.offers import expected_speed, normal

from stemctl.asked.presets import COSTS

HTDEMUCS_REALTIME = 50.0
"""Seconds of audio a second of `htdemucs` on an RTX 3090. Others report 42 to 53 of a V100 with
Demucs itself; nothing of this project was measured on a GPU yet."""

HERE, HERE_REALTIME = "this machine", 2.0
"""The name of what a worker of this machine runs on, and its speed of `htdemucs` on two cores."""

BOOT_S = 300.0
"""Until any was measured: an image is fetched, and the worker proves itself."""

LEAST_COST = 0.05
"""Of a preset that costs next to nothing (`center`): decoding and encoding remain."""

TWO_STEMS = frozenset(("vocals", "instrumental", "no_vocals"))
ENOUGH_S = 600.0
"""Of audio, until what was measured is believed."""
REMEMBERED_S = 360_000.0
"""Of audio: what is older counts less and less."""


@dataclass(frozen=True)
class Speed:
    """Seconds of audio a second of one machine; ``measured``: not only expected."""

    realtime: float
    measured: bool


class _Sum(BaseModel):
    audio_s: float = 0.0
    work_s: float = 0.0

    @property
    def enough(self) -> bool:
        return self.audio_s >= ENOUGH_S and self.work_s > 0


class _Kept(BaseModel):
    speeds: dict[str, dict[str, _Sum]] = {}
    """By kind of work, then by GPU."""
    boot_s: dict[str, float] = {}
    """By cloud."""
    free_s: dict[str, float] = {}
    """By cloud: of the boot, what is not paid for."""


def kind_of_work(preset: str, stems: Iterable[str]) -> str:
    """What of a request decides its speed."""
    return f"{preset}/two" if set(stems) and set(stems) <= TWO_STEMS else preset


def speed_of(gpu: str, preset: str, stems: Iterable[str] = ()) -> Speed:
    """Of a machine with such a GPU; no ``stems``: all that the preset has."""
    kind = kind_of_work(preset, stems)
    measured = {name: one for name, one in _read().speeds.get(kind, {}).items() if one.enough}
    if own := measured.get(normal(gpu)):
        return Speed(own.audio_s / own.work_s, True)
    whole, two = COSTS.get(preset, (0.0, 0.0))
    cost = max(LEAST_COST, two if kind.endswith("/two") else whole)
    if gpu == HERE:
        return Speed(HERE_REALTIME / cost, False)
    others = [(one, expected_speed(name)) for name, one in measured.items() if name != normal(HERE)]
    # As much faster or slower than expected as the GPUs that were measured.
    if work := sum(one.work_s * speed for one, speed in others):
        return Speed(expected_speed(gpu) * sum(one.audio_s for one, _ in others) / work, False)
    return Speed(HTDEMUCS_REALTIME * expected_speed(gpu) / cost, False)


def learn(measured: Iterable[tuple[str, str, float, float]]) -> None:
    """Keep what a run has measured: GPU, kind of work, seconds of audio, seconds of work.

    Where it cannot be kept, quotes stay as good as they were.
    """
    kept = _read()
    for gpu, kind, audio_s, work_s in measured:
        if not gpu or audio_s <= 0 or work_s <= 0:
            continue
        total = kept.speeds.setdefault(kind, {}).setdefault(normal(gpu), _Sum())
        total.audio_s += audio_s
        total.work_s += work_s
        if total.audio_s > REMEMBERED_S:
            share = REMEMBERED_S / total.audio_s
            total.audio_s *= share
            total.work_s *= share
    _write(kept)


@dataclass(frozen=True)
class Boot:
    """How long a run takes beside its work, in seconds: machines boot, prove themselves, and are
    ended. ``free``: what of it is not paid for."""

    seconds: float
    free: float = 0.0


def boot_of(cloud: str) -> Boot:
    """Of a cloud's machines."""
    kept = _read()
    return Boot(kept.boot_s.get(cloud, BOOT_S), kept.free_s.get(cloud, 0.0))


def learn_boot(cloud: str, boot: Boot) -> None:
    """A run's machines took so long; the later ones count more."""
    kept = _read()
    kept.boot_s[cloud] = (kept.boot_s.get(cloud, boot.seconds) + boot.seconds) / 2
    kept.free_s[cloud] = (kept.free_s.get(cloud, boot.free) + boot.free) / 2
    _write(kept)


def _write(kept: _Kept) -> None:
    path = _place()
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(kept.model_dump(), indent=1))
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)


def _place() -> Path:
    return platformdirs.user_data_path("stemfleet") / "speeds.json"


def _read() -> _Kept:
    try:
        return _Kept.model_validate_json(_place().read_bytes())
    except (OSError, ValidationError):
        return _Kept()
