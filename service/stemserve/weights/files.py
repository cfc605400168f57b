"""Finding weights, in one directory of the user's choice, and holding them against their digests.

The Demucs project names a file by its model's signature and the first 8 hex digits of its own
SHA-256: ``955717e8-8726e21a.th``. A file with the signature and another checksum (weights trained
further, say) is taken too, as long as its name tells the truth about its content; so
``Kim_Vocal_2-0123abcd.onnx`` is taken for ``Kim_Vocal_2.onnx``. Files under their published names
must be what the registry says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from stemserve.errors import DamagedWeightsError, PresetUnavailableError
from stemserve.weights import records
from stemserve.weights.registry import UNKNOWN, Entry, Licence, digest_in_name, registry

DIRECTORY_VARIABLE = "STEMSERVE_WEIGHTS"


@dataclass(frozen=True)
class WeightFile:
    """One file of weights, by the name it was published under."""

    published: str

    @property
    def signature(self) -> str:
        """The model's name in the file's name."""
        return Path(self.published).stem.partition("-")[0]

    @property
    def entry(self) -> Entry | None:
        """What the registry knows of it."""
        return registry().get(self.published)

    @property
    def licence(self) -> Licence:
        """Its terms; of what the registry does not know, they are unknown."""
        return self.entry.licence if self.entry else UNKNOWN

    def find(self) -> Path | None:
        """Where the file is: the published one, else one of the same signature."""
        place = directory()
        if (place / self.published).is_file():
            return place / self.published
        suffix = Path(self.published).suffix
        named = re.compile(re.escape(self.signature) + r"-[0-9a-f]{8}" + re.escape(suffix))
        found = sorted(p for p in place.glob(f"{self.signature}-*") if named.fullmatch(p.name))
        return found[0] if found else None


def directory() -> Path:
    """Where weights are looked for: ``STEMSERVE_WEIGHTS``, else in the user's cache."""
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("stemfleet", appauthor=False)) / "weights"


def missing(files: Iterable[WeightFile]) -> list[str]:
    """The published names of those files that are not there, or clearly cut short."""
    said = []
    for file in files:
        path = file.find()
        if path is None:
            said.append(file.published)
        elif fault := size_fault(file, path):
            said.append(f"{file.published} (damaged: {fault})")
    return said


def size_fault(file: WeightFile, path: Path) -> str | None:
    """What a look at a found file's size says against it; costs no reading."""
    if path.name != file.published or file.entry is None:
        return None
    return file.entry.size_fault(path.stat().st_size)


def verified(file: WeightFile) -> Path:
    """The path of a file, after its content was held against its digest.

    A file that has not changed since it was last read through is not read again.

    Raises:
        PresetUnavailableError: it is not there.
        DamagedWeightsError: its content is not what it should be.
    """
    path = file.find()
    if path is None:
        raise PresetUnavailableError(
            f"The weights {file.published} are not in {directory()}: {how_to_fetch(file.published)}"
        )
    if fault := size_fault(file, path):
        raise DamagedWeightsError(_damaged(file, path, f"they have {fault}"))
    if (known := records.recorded(path)) is None or not is_expected(file, path, known):
        check(file, path)
    return path


def check(file: WeightFile, path: Path) -> str:
    """Read a found file through; its SHA-256, recorded.

    Raises:
        DamagedWeightsError: its content is not what it should be.
    """
    if fault := size_fault(file, path):
        raise DamagedWeightsError(_damaged(file, path, f"they have {fault}"))
    found = path.stat()
    sha256 = records.measure(path)
    if not is_expected(file, path, sha256):
        raise DamagedWeightsError(_damaged(file, path, f"their SHA-256 begins with {sha256[:8]}"))
    records.record(path, sha256, found)
    return sha256


def is_expected(file: WeightFile, path: Path, sha256: str) -> bool:
    """Whether a SHA-256 is what the registry, the name, or else the first look says."""
    if path.name == file.published and file.entry is not None and file.entry.sha256 is not None:
        return sha256 == file.entry.sha256
    if (digits := digest_in_name(path.name)) is not None:
        return sha256.startswith(digits)
    return sha256 == (records.last_recorded(path) or sha256)


def how_to_fetch(name: str) -> str:
    """The command that brings a preset's weights, or one file."""
    return f"stemserve weights fetch {name}"


def _damaged(file: WeightFile, path: Path, how: str) -> str:
    return (
        f"The weights {path} are damaged, or another model's: {how}. "
        f"Delete the file and fetch it again: {how_to_fetch(file.published)}"
    )
