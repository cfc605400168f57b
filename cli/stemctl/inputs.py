"""What the arguments of a run mean: files, folders with all their audio, and URLs.

Nothing is read here but folders and files' sizes. What cannot be used is kept with its reason, so
that a run says so and goes on with the rest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stemctl.errors import InputError
from stemctl.naming import Source, assign_places, printable
from stemctl.outputs import RECORD
from stemctl.wishes import Wishes

AUDIO_SUFFIXES = frozenset(
    {".aac", ".ac3", ".aif", ".aiff", ".alac", ".amr", ".ape", ".au", ".caf", ".dsf", ".eac3"}
    | {".flac", ".m4a", ".m4b", ".mka", ".mp2", ".mp3", ".mp4", ".mpc", ".oga", ".ogg", ".opus"}
    | {".ra", ".tta", ".wav", ".wave", ".weba", ".webm", ".wma", ".wv"}
)
"""What is taken from a folder. A file that is named itself is taken whatever it is called."""


@dataclass(frozen=True)
class Song:
    """One input of a run: either ``path`` or ``url`` is set."""

    name: str
    """For people: printable, and short enough for the worker."""
    place: str
    """The folder for its stems, under the output folder, unless the wishes have a pattern."""
    source: Source
    """What that, and a pattern's fields, are made of."""
    wishes: Wishes
    path: Path | None = None
    url: str | None = None


@dataclass(frozen=True)
class Unusable:
    """An input, or a part of a folder, that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Inputs:
    """All that the arguments of a run mean."""

    songs: tuple[Song, ...]
    unusable: tuple[Unusable, ...]


@dataclass(frozen=True)
class _Found:
    source: Source
    path: Path | None = None
    url: str | None = None


def find_inputs(arguments: Sequence[str], out: Path, wishes: Wishes) -> Inputs:
    """The songs that the arguments name, each once, with places under ``out``.

    Folders are walked through, in the order of names, also behind links, each folder once. Left out
    are hidden files and folders, ``out`` itself, and what stemctl has made elsewhere.

    Raises:
        InputError: there is no song, and not even an unusable one.
    """
    unusable: list[Unusable] = []
    found: dict[str, _Found] = {}
    for argument in arguments:
        for item in _find(argument, out, unusable):
            found.setdefault(item.source.identity, item)
    if not found and not unusable:
        raise InputError(
            f"no audio in {', '.join(arguments)}: name files, or folders with files such as "
            "song.flac, song.mp3 or song.wav"
        )
    places = assign_places([item.source for item in found.values()])
    return Inputs(
        tuple(
            Song(printable(item.source.name)[:200], place, item.source, wishes, item.path, item.url)
            for item, place in zip(found.values(), places, strict=True)
        ),
        tuple(unusable),
    )


def _find(argument: str, out: Path, unusable: list[Unusable]) -> Iterator[_Found]:
    if "://" in argument:
        url = _url(argument, unusable)
        if url:
            yield url
        return
    path = Path(argument)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        unusable.append(Unusable(printable(argument), _reason(error)))
        return
    if stat.S_ISDIR(mode):
        yield from _folder(path, out, unusable)
    else:
        above = path.absolute().parent.name
        yield from _file(path, Source((), path.name, above, False, ""), unusable)


def _url(argument: str, unusable: list[Unusable]) -> _Found | None:
    parts = urlsplit(argument)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        reason = "only http:// and https:// URLs are fetched: download it, and submit the file"
        unusable.append(Unusable(printable(argument), reason))
        return None
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.hostname
    return _Found(Source((), name, parts.hostname, False, argument), url=argument)


def _file(path: Path, source: Source, unusable: list[Unusable]) -> Iterator[_Found]:
    """The file, if there is something to read in it."""
    name = printable(str(path))
    try:
        real = path.resolve(strict=True)
        about = real.stat()
    except (OSError, RuntimeError) as error:
        unusable.append(Unusable(name, _reason(error)))
        return
    if not stat.S_ISREG(about.st_mode):
        unusable.append(Unusable(name, "is no file"))
    elif about.st_size == 0:
        unusable.append(Unusable(name, "is empty"))
    elif not os.access(real, os.R_OK):
        unusable.append(Unusable(name, "may not be read: see its permissions"))
    else:
        yield _Found(replace(source, identity=str(real)), path=path)


def _folder(root: Path, out: Path, unusable: list[Unusable]) -> Iterator[_Found]:
    seen: set[tuple[int, int]] = set()
    above = root.resolve().name or "root"

    def blocked(error: OSError) -> None:
        unusable.append(Unusable(printable(str(error.filename)), _reason(error)))

    for here, folders, files in os.walk(root, onerror=blocked, followlinks=True):
        folder = Path(here)
        about = folder.stat()
        been = (about.st_dev, about.st_ino) in seen
        seen.add((about.st_dev, about.st_ino))
        if been or RECORD in files or folder.resolve() == out.resolve():
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = folder.relative_to(root).parts
        for name in sorted(files):
            if Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield from _file(folder / name, Source(inside, name, above, True, ""), unusable)


def _reason(error: OSError | RuntimeError) -> str:
    """Why something cannot be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        return "is not there: see its name"
    if isinstance(error, PermissionError):
        return "may not be read: see its permissions"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {error}"
