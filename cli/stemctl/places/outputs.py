"""What is in the output folder, and how stems get there: a whole track at once, or file by file.

Of each track there is a record: which input its stems are of and what was asked. By it the next
run knows what is done, and what at that place is not its own and must be left alone. It lies as
`RECORD` in the track's folder; of a track whose stems are spread by a pattern, in `RECORDS`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from stemserve.schema import ResultFile

from stemctl.asked.naming import fold
from stemctl.asked.track import Track
from stemctl.asked.wanted import Wanted
from stemctl.errors import InputError

RECORD = ".stemctl.json"
RECORDS = ".stemctl"
STAGING_PREFIX = ".stemctl-"


class Origin(BaseModel):
    """Which input it was: by content, and for a file by what tells quickly that it is the same."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    """Of the file's bytes; of the URL's text, which may hold a secret, where there is no file."""
    size: int | None = None
    mtime_ns: int | None = None


class Record(BaseModel):
    """What lies beside the stems of a track."""

    model_config = ConfigDict(frozen=True)

    wanted: Wanted
    origin: Origin
    files: tuple[ResultFile, ...]
    places: tuple[str, ...] = ()
    """Of a track whose stems are spread: where each of the files is, under the output folder."""
    begun: bool = False
    """In a bucket: not all of the files have got there yet."""

    @field_validator("places")
    @classmethod
    def _within(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        if any(PurePath(place).is_absolute() or ".." in PurePath(place).parts for place in places):
            raise ValueError("leads out of the output folder")
        return places


def is_done(out: Path, track: Track, *, overwrite: bool) -> bool:
    """Whether all that is wanted of a track is at its place; False: it can be put there.

    Blocks: it may have to read the input.

    Raises:
        InputError: something else is there, and would be lost; or ``overwrite`` would not help.
        OSError: the input cannot be read.
    """
    record = read_record(out, track)
    if track.own_folder:
        there, foreign = _look_at_folder(out / track.place, record)
    else:
        there, foreign = _look_at_files(out, track, record)
    sizes = [_size(path) for path in there]
    return judge(str(out / track.place), track, record, sizes, foreign=foreign, overwrite=overwrite)


def judge(
    where: str,
    track: Track,
    record: Record | None,
    there: Sequence[int | None],
    *,
    foreign: bool,
    overwrite: bool,
) -> bool:
    """What `is_done` says, by what is there.

    Args:
        where: The track's place, for people.
        track: What is wanted.
        record: What was put there, as far as is known.
        there: Sizes of the record's files, None of those that are gone; empty if all are.
        foreign: There is something else.
        overwrite: It may be lost.

    Raises:
        InputError: it may not be lost.
        OSError: the input cannot be read.
    """
    if not there and not foreign:
        return False
    reason = "holds files that are not stemctl's"
    intact = not foreign
    if record and there:
        same = record.wanted == track.wanted
        if same and _is_of(record.origin, track.path, track.url):
            whole = [file.size for file in record.files]
            if there == whole and not record.begun:
                return True
            changed = any(s not in (None, right) for s, right in zip(there, whole, strict=True))
            if changed and not record.begun:
                intact, reason = False, "holds stems that were changed since"
        else:
            intact = False
            reason = "holds the stems of another input" if same else f"holds {record.wanted}"
    if not intact and not overwrite:
        raise InputError(f"{where} {reason}: choose another --out, or --overwrite")
    return False


def _look_at_folder(place: Path, record: Record | None) -> tuple[list[Path], bool]:
    """Which files stemctl has put there, as far as is known, and whether there are others."""
    _see_way(place)
    if not os.path.lexists(place):
        return [], False
    if not place.is_dir():
        raise InputError(f"{place} is in the way: move it, or choose another --out")
    if record:
        return [place / file.name for file in record.files], False
    return [], any(not entry.is_dir() for entry in os.scandir(place))


def _look_at_files(out: Path, track: Track, record: Record | None) -> tuple[list[Path], bool]:
    """The same for files that a pattern has spread; what was taken away whole is forgotten."""
    paths = [out / file for file in track.files]
    for path in paths:
        _see_way(path)
        if path.is_dir():
            raise InputError(f"{path} is in the way: move it, or choose another --output")
    ours = [out / file for file in record.places] if record else []
    foreign = any(os.path.lexists(path) for path in paths if path not in ours)
    return (ours if any(map(os.path.lexists, ours)) else []), foreign


def _see_way(place: Path) -> None:
    for above in place.parents:
        if above.is_dir():
            return
        if os.path.lexists(above):
            raise InputError(f"{above} is in the way: move it, or choose another --out")


def _is_of(origin: Origin, path: Path | None, url: str | None) -> bool:
    if path is None:
        return origin == url_origin(url or "")
    about = path.stat()
    if about.st_size != origin.size:
        return False
    return about.st_mtime_ns == origin.mtime_ns or file_origin(path).sha256 == origin.sha256


def url_origin(url: str) -> Origin:
    """The origin of what a worker fetches itself."""
    return Origin(sha256=hashlib.sha256(url.encode()).hexdigest())


def file_origin(path: Path) -> Origin:
    """The origin of a file; reads all of it, in constant memory.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256")
    return Origin(sha256=digest.hexdigest(), size=about.st_size, mtime_ns=about.st_mtime_ns)


def read_record(out: Path, track: Track) -> Record | None:
    """What was put at a track's place; None where it was not stemctl, or cannot be told."""
    try:
        record = Record.model_validate_json((out / record_place(track)).read_bytes())
    except (OSError, ValidationError):
        return None
    whole = track.own_folder or len(record.places) == len(record.files)
    return record if whole else None


def record_place(track: Track) -> str:
    """Where a track's record lies, under the output folder."""
    if track.own_folder:
        return f"{track.place}/{RECORD}"
    return f"{RECORDS}/{hidden_name(track)}.json"


def hidden_name(track: Track) -> str:
    """What is kept of a track under `RECORDS` is called so: a name of its own, of one length."""
    return hashlib.sha256(fold(track.place).encode()).hexdigest()[:32]


def placed_under(folder: Path) -> frozenset[str]:
    """The files that runs into a folder have put there by users' own patterns; blocks."""
    places: list[str] = []
    for path in (folder / RECORDS).glob("*.json"):
        try:
            places += Record.model_validate_json(path.read_bytes()).places
        except (OSError, ValidationError):
            continue
    return frozenset(places)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def put_in_place(staged: Path, out: Path, track: Track, record: Record) -> None:
    """Move a staged track to its place: in one step where it can be, else file by file.

    A run that is cut short between two files is seen as such by the next one.

    Raises:
        OSError: the disk is full, or the place cannot be written.
    """
    if track.own_folder:
        _put_folder(staged, out, track, record)
    else:
        _put_files(staged, out, track, record)


def _put_folder(staged: Path, out: Path, track: Track, record: Record) -> None:
    place = out / track.place
    _write_record(staged / RECORD, record)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) or not place.is_dir():
            raise
    else:
        return
    before = read_record(out, track)
    new = record.wanted.file_names
    for name in new:
        (staged / name).replace(place / name)
    for name in before.wanted.file_names if before else ():
        if name not in new:
            (place / name).unlink(missing_ok=True)
    (staged / RECORD).replace(place / RECORD)
    staged.rmdir()


def _put_files(staged: Path, out: Path, track: Track, record: Record) -> None:
    before = read_record(out, track)
    for file in before.places if before else ():
        if file not in track.files:
            (out / file).unlink(missing_ok=True)
    # First, so that what is there after a cut is known as ours.
    noted = out / record_place(track)
    noted.parent.mkdir(parents=True, exist_ok=True)
    _write_record(staged / RECORD, record.model_copy(update={"places": track.files}))
    (staged / RECORD).replace(noted)
    for name, file in zip(record.wanted.file_names, track.files, strict=True):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(out / file)
    staged.rmdir()


def _write_record(path: Path, record: Record) -> None:
    path.write_text(json.dumps(record.model_dump(mode="json"), indent=1))


def cannot_write(error: OSError, out: Path) -> str:
    """Why nothing can be written to the output folder, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no room left in {out}: free some, then run the same command again"
    return f"{out} cannot be written ({error.strerror}): see its permissions, or choose another"
