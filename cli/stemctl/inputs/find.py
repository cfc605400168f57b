"""What the arguments of a run mean: files, folders and patterns, URLs and objects, manifests.

Nothing is read here but folders and files' sizes. What cannot be used is kept with its reason, so
that a run says so and goes on with the rest.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import AnyHttpUrl, TypeAdapter

from stemctl.asked.filter import EVERYTHING, Filter
from stemctl.asked.naming import Source, assign_places, printable, without_secrets
from stemctl.asked.wishes import Wishes
from stemctl.errors import InputError
from stemctl.inputs.manifest import SUFFIXES as MANIFESTS
from stemctl.inputs.manifest import read_manifest
from stemctl.places.bucket import bucket_of
from stemctl.places.objects import SCHEME, list_objects, object_name
from stemctl.places.outputs import RECORD, placed_under

NO_AUDIO = "holds no audio that is to be separated"

_URL = TypeAdapter(AnyHttpUrl)
"""What a worker takes for one."""


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
    """http, https, or s3://bucket/key."""
    where: str | None = None
    """The row of a manifest that asks for it, for people."""


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


def read_list(arguments: Sequence[str], *, null: bool) -> list[str]:
    """The arguments, with those from standard input in the place of ``-``.

    Raises:
        InputError: ``-`` stands there twice, or there is a terminal.
    """
    if "-" not in arguments:
        return list(arguments)
    if arguments.count("-") > 1 or sys.stdin.isatty():
        raise InputError("- reads one list from standard input: give it by a pipe, such as find's")
    text = sys.stdin.buffer.read()
    names = text.split(b"\0") if null else text.splitlines()
    at = arguments.index("-")
    listed = [os.fsdecode(name) for name in names if name.strip()]
    return [*arguments[:at], *listed, *arguments[at + 1 :]]


def find_inputs(
    arguments: Sequence[str],
    out: Path,
    wishes: Wishes,
    *,
    manifests: Sequence[Path] = (),
    only: Filter = EVERYTHING,
) -> Inputs:
    """The songs that arguments and manifests name, each once, with places under ``out``.

    Folders are walked through, in the order of names, also behind links, each folder once. Left out
    are hidden files and folders, ``out`` itself, and what stemctl has made elsewhere. An argument
    that is the name of a manifest is one. A song that is asked for with several wishes is several.

    Raises:
        InputError: there is no song, and not even an unusable one; a manifest cannot be used; or
            ``out`` is a URL.
    """
    bucket_of(out)
    lists = [path for path in map(Path, arguments) if _is_manifest(path)]
    given = [argument for argument in arguments if Path(argument) not in lists]
    rows = [_Row(argument, Path(), wishes, None) for argument in given]
    rows += _rows((*manifests, *lists), wishes)
    ours = _Ours(out)
    unusable: list[Unusable] = []
    found: dict[str, tuple[_Found, _Row]] = {}
    for row in rows:
        left_out: list[Unusable] = []
        for item in _find(row, ours, only, left_out):
            name = item.source.identity
            if name in found and found[name][1].wishes != row.wishes:
                name = f"{name}\0{row.wishes.model_dump_json()}"
            own = replace(item, source=replace(item.source, identity=name))
            found.setdefault(name, (own, row))
        for bad in left_out:
            told = f"{bad.name} ({row.where})" if row.where else bad.name
            unusable.append(Unusable(told, bad.reason))
    if not found and all(bad.reason == NO_AUDIO for bad in unusable):
        named = ", ".join(map(str, (*arguments, *manifests)))
        raise InputError(
            (f"no audio in {named}" if named else "nothing was given")
            + ": name files, or folders with files such as song.flac, song.mp3 or song.wav"
        )
    places = assign_places([item.source for item, _ in found.values()])
    return Inputs(
        tuple(
            Song(
                printable(item.source.name)[:200],
                place,
                item.source,
                row.wishes,
                item.path,
                item.url,
                row.where,
            )
            for (item, row), place in zip(found.values(), places, strict=True)
        ),
        tuple(unusable),
    )


@dataclass(frozen=True)
class _Row:
    """One argument, whether from the command line or from a manifest."""

    argument: str
    folder: Path
    """From where a path is meant."""
    wishes: Wishes
    where: str | None


def _is_manifest(path: Path) -> bool:
    return path.suffix.lower() in MANIFESTS and path.is_file()


def _rows(manifests: Sequence[Path], wishes: Wishes) -> list[_Row]:
    rows: list[_Row] = []
    wrong: list[str] = []
    for path in manifests:
        try:
            rows += [
                _Row(row.input, path.parent, row.wishes, row.where)
                for row in read_manifest(path, wishes)
            ]
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError("\n  ".join(wrong))
    return rows


def _find(row: _Row, ours: _Ours, only: Filter, unusable: list[Unusable]) -> Iterator[_Found]:
    if row.argument.startswith(SCHEME):
        yield from _objects(row.argument, ours, only, unusable)
        return
    if "://" in row.argument:
        url = _url(row.argument, unusable)
        if url:
            yield url
        return
    path = row.folder / row.argument
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if any(sign in row.argument for sign in "*?["):
            yield from _glob(path, ours, only, unusable)
        else:
            unusable.append(Unusable(printable(row.argument), _reason(error)))
        return
    if stat.S_ISDIR(mode):
        yield from _folder(path, ours, only, unusable)
    else:
        above = path.absolute().parent.name
        yield from _file(path, Source((), path.name, above, False, ""), unusable)


def _glob(pattern: Path, ours: _Ours, only: Filter, unusable: list[Unusable]) -> Iterator[_Found]:
    """What the shell would have found, had it been let: audio files, with their folders."""
    parts = pattern.parts
    first = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    root = Path(*parts[:first])
    above = root.resolve().name or "root"
    there, out = False, ours.out_below(root)
    try:
        matches = sorted(root.glob(str(Path(*parts[first:]))))
    except ValueError as error:
        unusable.append(Unusable(printable(str(pattern)), f"is no pattern: {error}"))
        return
    for path in matches:
        inside = path.relative_to(root).parts[:-1]
        entered = all(only.enters(inside[:i], part) for i, part in enumerate(inside))
        made = (path.parent / RECORD).exists() or ours.placed(path)
        if out is not None and out in Path(os.path.realpath(path)).parents:
            made = True
        if path.is_file() and entered and only.takes(inside, path.name) and not made:
            there = True
            yield from _file(path, Source(inside, path.name, above, True, ""), unusable)
    if not there:
        unusable.append(Unusable(printable(str(pattern)), "matches no audio: see the pattern"))


def _objects(url: str, ours: _Ours, only: Filter, unusable: list[Unusable]) -> Iterator[_Found]:
    """An object; or, of a bucket or a key that ends in ``/``, all audio below it."""
    try:
        bucket, key = object_name(url)
        if key and not key.endswith("/"):
            name = key.rpartition("/")[2]
            above = key.rpartition("/")[0].rpartition("/")[2] or bucket
            yield _Found(Source((), name, above, False, url), url=url)
            return
        above = key.rstrip("/").rpartition("/")[2] or bucket
        listed = list(list_objects(url))
        made = tuple(name[: -len(RECORD)] for name, _ in listed if name.endswith(f"/{RECORD}"))
        into = bucket_of(ours.out)
        if into is not None and into.name == bucket and into.key("") != key:
            made += (into.key(""),)
        for entry, size in listed:
            if entry.startswith(made):
                continue
            *inside, name = entry.removeprefix(key).split("/")
            whole = f"{SCHEME}{bucket}/{entry}"
            entered = all(only.enters(inside[:i], part) for i, part in enumerate(inside))
            if not entered or not only.takes(inside, name):
                continue
            if size:
                yield _Found(Source(tuple(inside), name, above, True, whole), url=whole)
            else:
                unusable.append(Unusable(printable(whole), "is empty"))
    except InputError as error:
        unusable.append(Unusable(printable(url), str(error).removeprefix(f"{url}: ")))


def _url(argument: str, unusable: list[Unusable]) -> _Found | None:
    shown = printable(without_secrets(argument))
    try:
        parts = urlsplit(argument)
        if parts.scheme in ("http", "https"):
            _URL.validate_python(argument)
    except ValueError:  # and pydantic's, which would show the URL
        unusable.append(Unusable(shown, "is no URL that can be fetched: see how it is written"))
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        reason = "only http, https and s3 URLs are fetched: download it, and submit the file"
        unusable.append(Unusable(shown, reason))
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


def _folder(root: Path, ours: _Ours, only: Filter, unusable: list[Unusable]) -> Iterator[_Found]:
    seen: set[tuple[int, int]] = set()
    above = root.resolve().name or "root"

    def blocked(error: OSError) -> None:
        unusable.append(Unusable(printable(str(error.filename)), _reason(error)))

    there = False
    for here, folders, files in os.walk(root, onerror=blocked, followlinks=True):
        folder = Path(here)
        about = folder.stat()
        been = (about.st_dev, about.st_ino) in seen
        seen.add((about.st_dev, about.st_ino))
        if been or RECORD in files or (folder != root and ours.is_out(folder)):
            folders.clear()
            continue
        inside = folder.relative_to(root).parts
        folders[:] = sorted(name for name in folders if only.enters(inside, name))
        for name in sorted(files):
            if only.takes(inside, name) and not ours.placed(folder / name):
                there = True
                yield from _file(folder / name, Source(inside, name, above, True, ""), unusable)
    if not there:
        unusable.append(Unusable(printable(str(root)), NO_AUDIO))


class _Ours:
    """What stemctl has made, or will: no songs."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._real = os.path.realpath(out)
        self._placed: dict[Path, frozenset[str]] = {}

    def is_out(self, folder: Path) -> bool:
        """Whether it is the output folder."""
        return os.path.realpath(folder) == self._real

    def out_below(self, root: Path) -> Path | None:
        """The output folder's real path, if it lies below ``root``."""
        out = Path(self._real)
        return out if Path(os.path.realpath(root)) in out.parents else None

    def placed(self, path: Path) -> bool:
        """Whether a run has put this file here by the user's own pattern."""
        path = path.absolute()
        for above in path.parents:
            if above not in self._placed:
                self._placed[above] = placed_under(above)
            if str(path.relative_to(above)) in self._placed[above]:
                return True
        return False


def _reason(error: OSError | RuntimeError | ValueError) -> str:
    """Why something cannot be read, and what to do."""
    if isinstance(error, FileNotFoundError):
        return "is not there: see its name"
    if isinstance(error, PermissionError):
        return "may not be read: see its permissions"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return f"cannot be read: {error}"
