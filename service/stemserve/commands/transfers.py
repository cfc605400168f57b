"""Fetching and verifying several files of weights, one after another, with what a person sees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from stemserve.errors import PresetUnavailableError, SettingsError, StemserveError
from stemserve.weights import records
from stemserve.weights.fetch import fetch
from stemserve.weights.files import WeightFile, check, directory, how_to_fetch
from stemserve.weights.licences import policy, refused
from stemserve.weights.policy import LicencePolicy

_STEP = 0.1
"""A line is written for every such share of a file, where no bar can be drawn."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    file: WeightFile
    path: Path | None = None
    sha256: str | None = None
    error: str | None = None
    error_type: str | None = None

    def as_json(self) -> dict[str, object]:
        """As a JSON object."""
        return {
            "file": self.file.published,
            "path": str(self.path) if self.path else None,
            "sha256": self.sha256,
            "error": self.error,
            "error_type": self.error_type,
        }


def fetch_all(
    files: Iterable[WeightFile], mirror: str | None, licence: str | None
) -> list[Outcome]:
    """Fetch what is not here yet; one that cannot be had does not hold up the others."""
    terms = _terms(licence)

    def one(file: WeightFile, progress: Callable[[int, int | None], None]) -> Path:
        if refusal := refused([file], terms):
            raise PresetUnavailableError(f"It is not fetched: it {refusal}.")
        return fetch(file, mirror, progress)

    return [_done(file, one) for file in files]


def verify_all(files: Iterable[WeightFile]) -> list[Outcome]:
    """Read files through and hold them against their digests."""

    def one(file: WeightFile, _progress: Callable[[int, int | None], None]) -> Path:
        path = file.find()
        if path is None:
            raise PresetUnavailableError(
                f"It is not in {directory()}: {how_to_fetch(file.published)}"
            )
        check(file, path)
        return path

    return [_done(file, one) for file in files]


def _done(
    file: WeightFile, one: Callable[[WeightFile, Callable[[int, int | None], None]], Path]
) -> Outcome:
    try:
        with _shown(file.published) as progress:
            path = one(file, progress)
    except StemserveError as error:
        print(f"{file.published}: {error}", file=sys.stderr)
        return Outcome(file, error=str(error), error_type=error.type)
    print(f"{file.published}: as it should be, in {path.parent}", file=sys.stderr)
    return Outcome(file, path, records.last_recorded(path))


def _terms(licence: str | None) -> LicencePolicy:
    if licence is None:
        return policy()
    if licence not in set(LicencePolicy):
        raise SettingsError(f"--licence: {licence!r} is neither any nor granted.")
    return LicencePolicy(licence)


@contextmanager
def _shown(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """What is told of a transfer: a bar on a terminal, else a line now and then."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
        with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bars:
            bar = bars.add_task(name, total=None)
            yield lambda here, whole: bars.update(bar, completed=here, total=whole)
        return
    told = 0.0

    def tell(here: int, whole: int | None) -> None:
        nonlocal told
        if whole and here / whole >= told + _STEP:
            told = here / whole
            print(f"{name}: {here / 1e6:.1f} of {whole / 1e6:.1f} MB", file=sys.stderr, flush=True)

    yield tell
