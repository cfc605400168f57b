"""What is known of each file of weights: its source, its size and digest, its licence.

The facts stand in ``registry.toml`` beside this module. Which presets use a file is not among them:
that follows from the presets.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REGISTRY = Path(__file__).with_name("registry.toml")

_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8})$")


@dataclass(frozen=True)
class Licence:
    """On what terms weights may be used, in whose words."""

    name: str
    granted: bool
    """Whether somebody entitled to it has granted a licence. What is unknown is not granted."""
    says: str
    sources: tuple[str, ...] = ()


UNKNOWN = Licence("unknown", False, "Nothing is known of the terms of these weights.")


@dataclass(frozen=True)
class Entry:
    """One file of weights, under the name it was published by."""

    file: str
    model: str
    url: str
    licence: Licence
    digest_note: str
    """How well the digest is known, or that it is not."""
    size: int | None = None
    """Bytes; None when nobody has noted them exactly."""
    size_about: int | None = None
    """Bytes, to two percent, where ``size`` is not known."""
    sha256: str | None = None
    """Of the whole file; None when it is not known."""

    @property
    def expected_size(self) -> int | None:
        """Bytes, as well as they are known."""
        return self.size or self.size_about

    def size_fault(self, size: int) -> str | None:
        """What is wrong with a file of so many bytes; None when it could be this one."""
        if self.size is not None and size != self.size:
            return f"{size:,} bytes, not {self.size:,}"
        if self.size_about is not None and abs(size - self.size_about) > 0.02 * self.size_about:
            return f"{size:,} bytes, not about {self.size_about:,}"
        return None


@cache
def _read(path: Path) -> dict[str, Entry]:
    facts = tomllib.loads(path.read_text(encoding="utf-8"))
    licences = {
        key: Licence(**{**fields, "sources": tuple(fields["sources"])})
        for key, fields in facts["licences"].items()
    }
    return {
        file: Entry(file=file, **{**fields, "licence": licences[fields["licence"]]})
        for file, fields in facts["weights"].items()
    }


def registry() -> dict[str, Entry]:
    """Every known file of weights, by its published name."""
    return _read(REGISTRY)


def digest_in_name(name: str) -> str | None:
    """The first 8 hex digits of a file's SHA-256, where its name carries them."""
    found = _DIGEST_IN_NAME.search(Path(name).stem)
    return found[1] if found else None
