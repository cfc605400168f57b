"""Where stems go: a folder of this machine, or the part of a bucket below a prefix.

``--out s3://bucket/prefix`` comes here as a path, which has one slash fewer. What a run keeps for
itself (its ledger, its lock) lies for a bucket in the user's data folder.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from stemctl.errors import InputError
from stemctl.places.objects import SCHEME

_BUCKET = re.compile(r"s3:/+([^/]+)/*(.*)")


@dataclass(frozen=True)
class Bucket:
    """The objects of a bucket whose keys begin with ``prefix/``; an empty prefix: all."""

    name: str
    prefix: str

    def __str__(self) -> str:
        return self.url("").rstrip("/")

    def url(self, place: str) -> str:
        """The URL of what has this place below the prefix."""
        return self.url_of(self.key(place))

    def url_of(self, key: str) -> str:
        """The URL of the object with this key."""
        return f"{SCHEME}{self.name}/{key}"

    def key(self, place: str) -> str:
        """Its key."""
        return f"{self.prefix}/{place}" if self.prefix else place


def bucket_of(out: Path) -> Bucket | None:
    """The bucket that ``out`` means; None: it is a folder.

    Raises:
        InputError: it is another kind of URL, or names no bucket.
    """
    found = _BUCKET.fullmatch(str(out))
    if found is not None:
        return Bucket(found[1], found[2].strip("/"))
    if re.match(r"\w+:/|s3:$", str(out)):
        raise InputError(f"--out {out}: give a folder of this machine, or s3://bucket/prefix")
    return None


def kept_in(out: Path) -> Path:
    """The folder that holds the ledger of the runs into ``out``."""
    bucket = bucket_of(out)
    if bucket is None:
        return out
    name = f"{bucket.name}-{hashlib.sha256(str(bucket).encode()).hexdigest()[:16]}"
    return platformdirs.user_data_path("stemfleet") / "buckets" / name


def shown(out: Path, place: str | None = None) -> str:
    """``out``, or a place in it, for people."""
    bucket = bucket_of(out)
    if bucket is None:
        return str(out / (place or ""))
    return bucket.url(place) if place else str(bucket)
