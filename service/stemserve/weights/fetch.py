"""Bringing weights to this machine: over broken connections, from a mirror, never half.

A file grows beside its place, under ``NAME.part``, and is moved in when its digest is right. What a
broken connection or a killed process left of it is gone on with. One fetch of a file at a time, of
however many processes.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from stemserve.errors import DamagedWeightsError, DiskFullError, WeightsFetchError
from stemserve.files import lock
from stemserve.weights import records
from stemserve.weights.files import DIRECTORY_VARIABLE, WeightFile, check, directory, verified
from stemserve.weights.registry import Entry

MIRROR_VARIABLE = "STEMSERVE_WEIGHTS_MIRROR"
"""The variable that names a base URL, under which all files are asked for by their names."""

ATTEMPTS = 5
"""How often in a row a connection may break without having brought anything."""

_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_TIMEOUT = httpx.Timeout(30.0)
_LARGEST = 4 * 2**30
"""Bytes that are taken of a file of unknown size."""
_LONGEST_FETCH_S = 6 * 3600.0
_LOCK_PAUSE_S = 0.2
_BUSY = {408, 425, 429, 500, 502, 503, 504}

Progress = Callable[[int, int | None], None]
"""Is told the bytes that are here, and the bytes there will be, where they are known."""


class _BrokenOffError(Exception):
    """This answer ended too early; another may go on."""


def fetch(file: WeightFile, mirror: str | None = None, progress: Progress | None = None) -> Path:
    """Bring one file to its place, unless it is there already and is what it should be.

    Args:
        file: Which.
        mirror: A base URL to ask instead of the registry's; None asks ``STEMSERVE_WEIGHTS_MIRROR``.
        progress: Is told how far it is.

    Returns:
        Where it is, its content verified.

    Raises:
        WeightsFetchError: it cannot be had, or what came is not what it should be.
        DiskFullError: there is no room for it.
    """
    entry = file.entry
    if entry is None:
        raise WeightsFetchError(
            f"Nobody has noted where {file.published} comes from: put it into {directory()}."
        )
    place = directory()
    path = place / file.published
    with _room_told(place):
        if _is_good(file, path):  # also where nothing could be written
            return path
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place / f".{file.published}.lock", file.published):
            if not _is_good(file, path):
                _bring(entry, _url(entry, mirror), path, progress or _silent)
                check(file, path)
    return path


def _is_good(file: WeightFile, path: Path) -> bool:
    """Whether the file is there and is what it should be; else what comes takes its place."""
    try:
        return path.is_file() and verified(file) == path
    except DamagedWeightsError:
        return False


def _bring(entry: Entry, url: str, path: Path, progress: Progress) -> None:
    part = path.with_name(f"{path.name}.part")
    resumed = _size(part) > 0
    _download(entry, url, part, progress)
    fault = _fault(entry, part)
    if fault and resumed:  # what was left here may have been another file's
        part.unlink()
        _download(entry, url, part, progress)
        fault = _fault(entry, part)
    if fault:
        part.unlink()
        raise WeightsFetchError(
            f"What {_public(url)} gives is not {entry.file}: {fault}. Nothing is kept."
        )
    part.chmod(0o644)
    records.forget(path)  # its digest was another's
    part.replace(path)


def _download(entry: Entry, url: str, part: Path, progress: Progress) -> None:
    """Fill ``part`` up to the file's end, over as many connections as that takes."""
    deadline = time.monotonic() + _LONGEST_FETCH_S
    failures = 0
    with httpx.Client(timeout=_TIMEOUT, follow_redirects=True) as client:
        while True:
            had = _size(part)
            try:
                _go_on(client, entry, url, part, progress, deadline)
                return
            except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
                raise WeightsFetchError(f"{_public(url)} cannot be fetched: {error}.") from error
            except (httpx.TransportError, _BrokenOffError) as error:
                reason = str(error) or type(error).__name__
            failures = 0 if _size(part) > had else failures + 1
            if failures >= ATTEMPTS or time.monotonic() > deadline:
                kept = _size(part)
                rest = f" {kept:,} bytes of it are kept for the next fetch." if kept else ""
                raise WeightsFetchError(f"{_public(url)} cannot be fetched: {reason}.{rest}")
            time.sleep(min(_PAUSE_S * 2**failures, _LONGEST_PAUSE_S))


def _go_on(
    client: httpx.Client, entry: Entry, url: str, part: Path, progress: Progress, deadline: float
) -> None:
    """One request for what is missing of ``part``."""
    # A file of unknown digest could be sewn together from two: it is begun anew.
    start = _size(part) if entry.sha256 else 0
    if entry.size is not None and start >= entry.size:
        if start == entry.size:
            return
        part.unlink()
        start = 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with client.stream("GET", url, headers=headers) as response:
        start = _start(response, start, url, part)
        length = response.headers.get("Content-Length", "")
        declared = start + int(length) if length.isdecimal() else None
        if declared is not None and (fault := entry.size_fault(declared)):
            raise WeightsFetchError(
                f"What {_public(url)} offers is not {entry.file}: it has {fault}."
            )
        limit = entry.size or declared or _LARGEST
        _check_room(part.parent, limit - start)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            at = start
            progress(at, limit if limit != _LARGEST else entry.size_about)
            for chunk in response.iter_raw():
                at += len(chunk)
                if at > limit:
                    break
                file.write(chunk)
                progress(at, limit if limit != _LARGEST else entry.size_about)
                if time.monotonic() > deadline:
                    raise _BrokenOffError(f"it took longer than {_LONGEST_FETCH_S / 3600:g} h")
        if at > limit:
            part.unlink()
            raise WeightsFetchError(
                f"What {_public(url)} gives is not {entry.file}: it is longer than {limit:,} bytes."
            )
        if at < (entry.size or declared or 0):
            raise _BrokenOffError(f"the answer ended after {at:,} bytes")


def _start(response: httpx.Response, asked: int, url: str, part: Path) -> int:
    """Where the answer's bytes begin in the file."""
    status = response.status_code
    if status == httpx.codes.OK:
        return 0  # a server that knows no ranges sends all of it
    if status == httpx.codes.PARTIAL_CONTENT and asked:
        said = response.headers.get("Content-Range", "")
        if re.match(rf"bytes {asked}-\d+/", said):
            return asked
        part.unlink()
        raise _BrokenOffError(
            f"asked for bytes from {asked} on, the server gave {said or 'others'}"
        )
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and asked:
        part.unlink()
        raise _BrokenOffError("the server's file is shorter than what is here")
    if status in _BUSY:
        raise _BrokenOffError(f"the server answers {status} {response.reason_phrase}")
    raise WeightsFetchError(
        f"{_public(url)} answers {status} {response.reason_phrase}. "
        "Check the address, or name a mirror."
    )


def _fault(entry: Entry, part: Path) -> str | None:
    if fault := entry.size_fault(_size(part)):
        return f"it has {fault}"
    if entry.sha256 is None:
        return None
    sha256 = records.measure(part)
    if sha256 == entry.sha256:
        return None
    return f"its SHA-256 is {sha256}, not {entry.sha256}"


def _url(entry: Entry, mirror: str | None) -> str:
    base = mirror or os.environ.get(MIRROR_VARIABLE)
    return f"{base.rstrip('/')}/{entry.file}" if base else entry.url


def _public(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _silent(_here: int, _whole: int | None) -> None:
    pass


def _check_room(place: Path, needed: int) -> None:
    if needed < _LARGEST and shutil.disk_usage(place).free < needed:
        raise OSError(errno.ENOSPC, "no room")


@contextmanager
def _room_told(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"There is no room for the weights in {place}. "
                f"Make some, or name another directory by {DIRECTORY_VARIABLE}."
            ) from error
        raise WeightsFetchError(
            f"{place} cannot be used: {error}. Name another directory by {DIRECTORY_VARIABLE}."
        ) from error


@contextmanager
def _alone(path: Path, name: str) -> Iterator[None]:
    """Hold the lock of a file's fetch; whoever comes second finds the file there."""
    deadline = time.monotonic() + _LONGEST_FETCH_S
    while (held := lock(path)) is None:
        if time.monotonic() > deadline:
            raise WeightsFetchError(f"Another process has been fetching {name} for too long.")
        time.sleep(_LOCK_PAUSE_S)
    with held:
        yield
