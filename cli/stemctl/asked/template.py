"""Where a track's stems go by a pattern of the user's: ``{parent}/{track}/{stem}.{ext}``.

A pattern gives each track the paths that it says, and no others: where two tracks would get the
same file, nothing is begun. What is filled in can open no folder, but for ``{folders}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from stemctl.asked.naming import LONGEST_PART, Source, printable, safe, short, stem_of
from stemctl.asked.words import unknown
from stemctl.errors import InputError

FIELDS = {
    "track": "the input's name, without its suffix",
    "name": "the same with it",
    "parent": "the folder that holds it; of a URL its host",
    "folders": "the folders between the one that was given and the file; may be none",
    "stem": "vocals, drums, …",
    "ext": "wav, flac, …",
    "preset": "the preset",
}
STEM_FILE = "{stem}.{ext}"
"""Stands behind a pattern without ``{stem}``, which so names a folder."""

_ANY = "\ue000"
"""Stands in for the stem until it becomes ``*``, which no safe name may have."""

_FIELD = re.compile(r"\{([^{}]*)\}")


class Template(BaseModel):
    """A pattern that `parse_template` has seen to."""

    model_config = ConfigDict(frozen=True)

    text: str

    def path(self, source: Source, preset: str, stem: str, ext: str) -> str:
        """Where a stem of an input goes: a path with ``/``, relative to the output folder.

        Raises:
            InputError: a part of it gets too long a name.
        """
        values = {
            "track": stem_of(source.name),
            "name": source.name,
            "parent": (source.folders or (source.above,))[-1],
            "folders": " - ".join(source.folders),
            "stem": stem,
            "ext": ext,
            "preset": preset,
        }
        parts: list[str] = []
        for part in self.text.split("/"):
            if part == "{folders}":
                parts += map(safe, source.folders)
            else:
                parts.append(safe(_filled(part, values)))
        return "/".join(parts)

    def place(self, source: Source, preset: str, ext: str) -> str:
        """The path of all stems of an input, for people: ``*`` stands for the stem."""
        return self.path(source, preset, _ANY, ext).replace(_ANY, "*")


def _filled(part: str, values: Mapping[str, str]) -> str:
    whole = _FIELD.sub(lambda field: values[field[1]], part)
    if len(printable(whole).encode()) > LONGEST_PART:
        # Cut where it does no harm: the suffix stays.
        whole = _FIELD.sub(lambda field: short(values[field[1]]), part)
    if len(printable(whole).encode()) > LONGEST_PART:
        raise InputError(f"--output: {part} becomes longer than {LONGEST_PART} bytes")
    return whole


def parse_template(text: str) -> Template:
    """The pattern in a text.

    Raises:
        InputError: a field is none, or the paths would be none.
    """

    def wrong(why: str) -> InputError:
        return InputError(f"--output {printable(text)}: {why}")

    pattern = text if "{stem}" in text else f"{text.rstrip('/')}/{STEM_FILE}"
    for field in _FIELD.findall(pattern):
        if field not in FIELDS:
            raise wrong(unknown("field", field, list(FIELDS)))
    if re.search(r"[{}]", _FIELD.sub("", pattern)):
        raise wrong("each { needs its }, around one of " + ", ".join(FIELDS))
    if pattern.startswith("/"):
        raise wrong("give a path within --out, which does not begin with /")
    if not pattern.endswith(".{ext}"):
        raise wrong("let it end in .{ext}")
    for part in pattern.split("/"):
        named = _FIELD.sub("x", part)
        if not part or safe(named) != named:
            raise wrong(f"{part!r} is no name that every file system takes")
    return Template(text=pattern)
