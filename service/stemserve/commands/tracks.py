"""Several inputs, one after another, on one separation process; one that fails ends none other."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemserve.commands.shown import Watcher, shown
from stemserve.direct import (
    Separation,
    content_of,
    input_name,
    input_path,
    open_separation,
    run_until_signal,
    scratch,
)
from stemserve.errors import SettingsError, StemserveError
from stemserve.jobs.job import JobContent
from stemserve.settings import Settings
from stemserve.task import Finished

_LONGEST_NAME = 200
"""Bytes of UTF-8; file systems allow 255."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    given: str
    place: Path
    seconds: float
    """Wall time, loading included."""
    finished: Finished | None = None
    error: str | None = None
    error_type: str | None = None

    @property
    def realtime(self) -> float | None:
        """Seconds of sound separated in a second."""
        if self.finished is None or not self.seconds:
            return None
        return self.finished.duration_seconds / self.seconds

    def as_json(self) -> dict[str, object]:
        """As a JSON object."""
        results = self.finished.results if self.finished else []
        return {
            "input": self.given,
            "place": str(self.place),
            "seconds": round(self.seconds, 3),
            "realtime": None if self.realtime is None else round(self.realtime, 3),
            "results": [result.model_dump(mode="json") for result in results],
            "error": self.error,
            "error_type": self.error_type,
        }


def separate_all(
    inputs: Sequence[str], out: Path, settings: Settings, wishes: Mapping[str, object]
) -> list[Outcome]:
    """Separate each input into a folder of its own under ``out``.

    Raises:
        StemserveError: nothing can be separated: a wrong wish, no such preset, no place to write.
        StoppedError: a signal came.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out {out} cannot be used: {error}.") from error
    places = [out.absolute() / name for name in place_names(inputs)]

    async def work() -> list[Outcome]:
        with shown(len(inputs)) as watcher:
            async with open_separation(settings, watcher.says) as separation:
                content = content_of(await separation.presets(), settings, **wishes)
                return [
                    await _separate(separation, settings, content, given, place, watcher)
                    for given, place in zip(inputs, places, strict=True)
                ]

    return run_until_signal(work)


async def _separate(
    separation: Separation,
    settings: Settings,
    content: JobContent,
    given: str,
    place: Path,
    watcher: Watcher,
) -> Outcome:
    watcher.begins(place.name)
    began = time.monotonic()
    try:
        with scratch(place.parent) as fetched:
            path = await input_path(given, settings, fetched)
            task = content.task(place.name, path, place, input_name=input_name(given))
            finished = await separation.run(task, watcher.note)
    except (StemserveError, OSError) as error:
        word = error.type if isinstance(error, StemserveError) else "error"
        watcher.says(f"{place.name}: failed: {error}")
        return Outcome(given, place, time.monotonic() - began, None, str(error), word)
    outcome = Outcome(given, place, time.monotonic() - began, finished)
    watcher.says(
        f"{place.name}: {finished.duration_seconds:.1f} s of sound in {outcome.seconds:.1f} s, "
        f"{len(finished.results)} files in {place}"
    )
    return outcome


def place_names(inputs: Sequence[str]) -> list[str]:
    """A plain folder name for each input; the second of a name gets a number."""
    taken: set[str] = set()
    names = []
    for given in inputs:
        name = _plain(given)
        number = 1
        while (unique := name if number == 1 else f"{name}-{number}").casefold() in taken:
            number += 1
        taken.add(unique.casefold())
        names.append(unique)
    return names


def _plain(given: str) -> str:
    name = unicodedata.normalize("NFC", input_name(given))
    name = Path(name).stem.strip(". ")
    name = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore") or "track"
