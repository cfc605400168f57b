"""Runs the presets on the same excerpt, one after another, and gathers what a page shows of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stemserve.audio import Block
from stemserve.audio.decode import decode, probe
from stemserve.audio.encode import Encoder, Encoding
from stemserve.commands.shown import Watcher
from stemserve.comparison.excerpt import Excerpt
from stemserve.comparison.measures import Level, level, residual
from stemserve.comparison.spectrogram import spectrogram
from stemserve.direct import Separation, content_of
from stemserve.errors import SeparationDiedError, SeparationFailedError
from stemserve.jobs.job import JobContent
from stemserve.schema import Preset, StemFormat, TaskState
from stemserve.settings import Settings
from stemserve.task import Advanced, Logged

_AUDIBLE = Encoding(StemFormat.MP3, mp3_quality=4)
"""What the page's players play: VBR of about 165 kbit/s."""


@dataclass(frozen=True)
class Card:
    """A sound as the page shows it: heard, seen and measured."""

    level: Level
    image: bytes
    """PNG."""
    audio: bytes
    """MP3."""


@dataclass(frozen=True)
class Result:
    """What a preset made of the excerpt."""

    preset: Preset
    seconds: float = 0.0
    """From the first sample to the last file, weights loaded."""
    loading_seconds: float = 0.0
    stems: dict[str, Card] = field(default_factory=dict)
    residual: Level | None = None
    """Of the mix less the sum of the stems."""
    error: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything that the page shows."""

    name: str
    start: float
    seconds: float
    rate: int
    device: str
    mix: Card
    results: tuple[Result, ...]


async def compare(
    excerpt: Excerpt,
    presets: Sequence[str],
    settings: Settings,
    separation: Separation,
    watcher: Watcher,
) -> Comparison:
    """Separate an excerpt with each preset. One that fails is shown with its reason.

    Raises:
        UnknownNameError: there is no such preset.
        PresetUnavailableError: this machine lacks what one of them needs.
        SeparationDiedError: the separation cannot be started.
    """
    known = {preset.name: preset for preset in await separation.presets()}
    wishes = {
        "all_stems": True,
        "format": "wav",
        "range": {
            "start_seconds": excerpt.start,
            "end_seconds": excerpt.start + excerpt.seconds,
        },
    }
    contents = [
        content_of(list(known.values()), settings, preset=preset, **wishes)
        for preset in dict.fromkeys(presets)
    ]
    with tempfile.TemporaryDirectory(prefix="stemserve-") as scratch:
        folder = Path(scratch)
        results = [
            await _result(separation, content, known[content.preset], excerpt, folder, watcher)
            for content in contents
        ]
        return Comparison(
            name=excerpt.path.name,
            start=excerpt.start,
            seconds=excerpt.seconds,
            rate=excerpt.rate,
            device=await separation.device(),
            mix=_card(excerpt.sound, excerpt.rate, folder),
            results=tuple(results),
        )


async def _result(
    separation: Separation,
    content: JobContent,
    preset: Preset,
    excerpt: Excerpt,
    scratch: Path,
    watcher: Watcher,
) -> Result:
    watcher.begins(preset.name)
    folder = scratch / preset.name
    began = time.monotonic()
    loaded = began

    def note(event: Advanced | Logged) -> None:
        nonlocal loaded
        if isinstance(event, Advanced) and event.tasks.inference is TaskState.NO_WORK:
            loaded = time.monotonic()
        watcher.note(event)

    try:
        await separation.run(content.task(preset.name, excerpt.path, folder), note)
    except (SeparationFailedError, SeparationDiedError) as error:
        watcher.says(f"{preset.name}: failed: {error}")
        return Result(preset, error=str(error))
    ended = time.monotonic()
    stems = {stem: _read(folder / f"{stem}.wav") for stem in content.stems}
    return Result(
        preset,
        seconds=ended - loaded,
        loading_seconds=loaded - began,
        stems={stem: _card(sound, excerpt.rate, folder) for stem, sound in stems.items()},
        residual=level(residual(excerpt.sound, stems)),
    )


def _read(path: Path) -> Block:
    return np.concatenate(list(decode(path, probe(path))))


def _card(sound: Block, rate: int, folder: Path) -> Card:
    path = folder / "heard.mp3"
    with Encoder(path, _AUDIBLE, rate, sound.shape[1]) as encoder:
        encoder.write(sound)
    return Card(level(sound), spectrogram(sound, rate), path.read_bytes())
