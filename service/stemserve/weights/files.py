"""Finding weights: files named by their content, in one directory of the user's choice.

The Demucs project names a file by its model's signature and the first 8 hex digits of its own
SHA-256: ``955717e8-8726e21a.th``. A file with the signature and another checksum (weights trained
further, say) is taken too, as long as its name tells the truth about its content.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from stemserve.errors import PresetUnavailableError

DIRECTORY_VARIABLE = "STEMSERVE_WEIGHTS"


@dataclass(frozen=True)
class WeightFile:
    """One file of weights, by the name it was published under."""

    published: str

    @property
    def signature(self) -> str:
        """The model's name in the file's name."""
        return self.published.partition("-")[0]

    def find(self) -> Path | None:
        """Where the file is: the published one, else one of the same signature."""
        place = directory()
        if (place / self.published).is_file():
            return place / self.published
        named = re.compile(re.escape(self.signature) + r"-[0-9a-f]{8}\.th")
        found = sorted(p for p in place.glob(f"{self.signature}-*") if named.fullmatch(p.name))
        return found[0] if found else None


def directory() -> Path:
    """Where weights are looked for: ``STEMSERVE_WEIGHTS``, else in the user's cache."""
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(platformdirs.user_cache_dir("stemfleet", appauthor=False)) / "weights"


def missing(files: tuple[WeightFile, ...]) -> list[str]:
    """The published names of those files that cannot be found."""
    return [file.published for file in files if file.find() is None]


def verified(file: WeightFile) -> Path:
    """The path of a file, after its content was held against its name.

    Raises:
        PresetUnavailableError: it is not there, or its content is not what its name says.
    """
    path = file.find()
    if path is None:
        raise PresetUnavailableError(f"The weights {file.published} are not in {directory()}.")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if not path.stem.endswith(f"-{digest[:8]}"):
        raise PresetUnavailableError(
            f"The weights {path} are damaged: their SHA-256 begins with {digest[:8]}. "
            "Delete the file and fetch it again."
        )
    return path
