"""What the image is built from, and a digest of it: the same digest, nothing to build.

``.dockerignore`` at the top of the project says what a builder is given: nothing but the files and
folders that its lines with ``!`` name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

DOCKERFILE = "image/Dockerfile"


def digest(project: Path, arguments: Mapping[str, str]) -> str:
    """SHA-256 over the names and contents of the files, and the build's arguments.

    Raises:
        FileNotFoundError: ``project`` is no checkout: it lacks what the image is built from.
    """
    total = hashlib.sha256()
    for path in sorted({project / DOCKERFILE, *_given(project)}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(project).as_posix()}\0{content}\n".encode())
    for name, value in sorted(arguments.items()):
        total.update(f"{name}={value}\n".encode())
    return total.hexdigest()


def _given(project: Path) -> Iterator[Path]:
    """The files that a builder is given."""
    for line in (project / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("!"):
            named = project / line[1:].strip()
            if named.is_dir():
                found = (path for path in named.rglob("*") if path.is_file())
                yield from (path for path in found if "__pycache__" not in path.parts)
            else:
                yield named
