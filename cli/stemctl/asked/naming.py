"""Where each track's stems go: a place under the output folder that is its own, and stays so.

A place is a relative path with ``/``. It depends on the track alone, unless two tracks of one run
want the same; then all of these get longer ones. It never leaves the output folder, is never
hidden, and differs from each other place on file systems that ignore case or normalise Unicode.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LONGEST_PART = 220
"""Bytes of UTF-8 in one part of a place; file systems allow 255."""

LONGEST_PIECE = 75
"""The same for a piece of a part that is made of several."""


@dataclass(frozen=True)
class Source:
    """What of an input its place may be made of."""

    folders: tuple[str, ...]
    """Folders between the folder that was given and the file; empty for a file or a URL."""
    name: str
    """The file's name, with its suffix."""
    above: str
    """What tells it from its like: the folder that was given or holds the file; a URL's host."""
    within: bool
    """Whether it was found in a folder, whose name then goes before ``folders``."""
    identity: str
    """The absolute path or the URL: what no other input has."""


def assign_places(sources: Sequence[Source]) -> list[str]:
    """A place for each of the sources, in their order. The sources' identities must differ."""
    forms = [0] * len(sources)
    last = len(_FORMS) - 1
    while True:
        places = [_FORMS[form](source) for source, form in zip(sources, forms, strict=True)]
        owners = defaultdict(list)
        for i, place in enumerate(places):
            owners[fold(place)].append(i)
        clashing = {i for group in owners.values() if len(group) > 1 for i in group}
        for key, held in owners.items():
            for holder in (i for above in folders_above(key) for i in owners.get(above, ())):
                # The longer place gives way only to one that has no other form left.
                clashing.update([holder] if forms[holder] < last else held)
        clashing = {i for i in clashing if forms[i] < last}
        if not clashing:
            return places
        for i in clashing:
            forms[i] += 1


def without_secrets(text: str) -> str:
    """A URL without what may be secret in it: name, password, query. Other texts stay as they are.

    Of a command's word that holds one, such as ``--endpoint=http://…``, the same.
    """
    return re.sub(r"(\w+://)(?:[^/?#\s]*@)?([^?#\s]*)[?#]?.*", r"\1\2", text)


def folders_above(key: str) -> list[str]:
    """The places that would hold this one."""
    parts = key.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def fold(place: str) -> str:
    """The same for places that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", place).casefold())


def _plain(source: Source) -> str:
    return _join(*source.folders, stem_of(source.name))


def _with_suffix(source: Source) -> str:
    return _join(*source.folders, source.name)


def _with_above(source: Source) -> str:
    if source.within:
        return _join(source.above, *source.folders, stem_of(source.name))
    return _join(f"{short(stem_of(source.name))} ({short(source.above)})")


def _with_both(source: Source) -> str:
    if source.within:
        return _join(source.above, *source.folders, source.name)
    return _join(f"{short(source.name)} ({short(source.above)})")


def _with_hash(source: Source) -> str:
    return _join(f"{short(stem_of(source.name))} ({_hash(source)[:8]})")


def _with_whole_hash(source: Source) -> str:
    return _join(f"{short(stem_of(source.name))} ({_hash(source)})")


_FORMS: tuple[Callable[[Source], str], ...] = (
    _plain,
    _with_suffix,
    _with_above,
    _with_both,
    _with_hash,
    _with_whole_hash,
)


def _hash(source: Source) -> str:
    return hashlib.sha256(source.identity.encode("utf-8", "surrogateescape")).hexdigest()


def stem_of(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem.strip(".") and suffix else name


def _join(*parts: str) -> str:
    return "/".join(safe(part) for part in parts)


def safe(part: str) -> str:
    """A name that every common file system takes, and that is neither hidden nor a way out."""
    part = printable(part)
    part = "".join("_" if c in '/\\:*?"<>|' else c for c in part)
    part = part.rstrip(" .").lstrip(" ")
    if part.startswith("."):
        part = "_" + part[1:]
    return short(part, LONGEST_PART) or "_"


def short(part: str, length: int = LONGEST_PIECE) -> str:
    """The part cut to so many bytes of UTF-8, between characters."""
    whole = printable(part).encode()
    return part if len(whole) <= length else whole[:length].decode(errors="ignore").rstrip(" .")


def printable(text: str) -> str:
    """The text in NFC; what is no character of any text, or steers a terminal, is ``_``."""
    text = unicodedata.normalize("NFC", text)
    return "".join("_" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
