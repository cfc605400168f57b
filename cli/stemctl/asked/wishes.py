"""What is asked of a track, as people write it: on the command line or in a row of a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict
from stemserve.schema import (
    BIT_DEPTHS,
    DEFAULT_DEPTHS,
    BitDepth,
    Clip,
    Range,
    StemFormat,
    parse_range,
)

from stemctl.asked.template import Template, parse_template
from stemctl.asked.words import unknown
from stemctl.errors import InputError

_YES = frozenset({"yes", "true", "1"})
_NO = frozenset({"no", "false", "0"})


class Wishes(BaseModel):
    """What is asked of a track before the workers have said what they can do."""

    model_config = ConfigDict(frozen=True)

    preset: str | None = None
    """None: the workers' own."""
    stems: tuple[str, ...] = ()
    """Empty: the usual ones."""
    format: StemFormat = StemFormat.WAV
    bit_depth: BitDepth | None = DEFAULT_DEPTHS[StemFormat.WAV]
    mono: bool = False
    clip: Clip = Clip.NONE
    strict: bool | None = None
    """None: the workers' own."""
    range: Range | None = None
    sidecar: bool = False
    """Also the file that tells how the stems were made."""
    output: Template | None = None
    """None: a folder for each track, with a name that no other track has."""


def read_wishes(said: Mapping[str, str | bool | None], base: Wishes) -> Wishes:
    """The wishes that ``said`` tells by their names; where it has None or nothing, those of base.

    Another format that is said without a bit depth has its own default one.

    Raises:
        InputError: one cannot be; the message names it.
    """
    given = {name: value for name, value in said.items() if value not in (None, "")}
    texts = {name: str(value).strip() for name, value in given.items()}
    changed: dict[str, object] = {
        name: read(texts[name]) for name, read in _READERS.items() if name in given
    }
    if "format" in given or "bit-depth" in given:
        changed["format"], changed["bit_depth"] = check_format(
            texts.get("format", base.format.value), texts.get("bit-depth")
        )
        if "bit-depth" not in given and changed["format"] is base.format:
            changed["bit_depth"] = base.bit_depth
    wishes = base.model_copy(update=changed)
    if wishes.mono and wishes.format is StemFormat.STEM_MP4:
        raise InputError(f"{wishes.format} is stereo: leave out --mono")
    return wishes


def check_format(name: str, bit_depth: str | None) -> tuple[StemFormat, BitDepth | None]:
    """The format of a name, and the bit depth, or the one that the format has by default.

    Raises:
        InputError: no such format, or it does not hold that bit depth.
    """
    if name not in set(StemFormat):
        raise InputError(unknown("format", name, [known.value for known in StemFormat]))
    stem_format = StemFormat(name)
    if bit_depth is None:
        return stem_format, DEFAULT_DEPTHS.get(stem_format)
    held = [depth.value for depth in BIT_DEPTHS[stem_format]]
    if bit_depth not in held:
        what = f"holds bit depth {' or '.join(held)}" if held else "has no bit depth"
        raise InputError(f"{name} {what}, not {bit_depth}: see --bit-depth")
    return stem_format, BitDepth(bit_depth)


def _stems(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _clip(text: str) -> Clip:
    if text not in set(Clip):
        raise InputError(unknown("clip handling", text, [one.value for one in Clip]))
    return Clip(text)


def _yes(text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise InputError(f"{text}: say yes or no")
    return text.lower() in _YES


def _range(text: str) -> Range:
    try:
        return parse_range(text)
    except ValueError as error:
        raise InputError(f"range {error}") from None


_READERS: Mapping[str, Callable[[str], object]] = {
    "preset": str,
    "stems": _stems,
    "mono": _yes,
    "clip": _clip,
    "strict": _yes,
    "range": _range,
    "sidecar": _yes,
    "output": parse_template,
}
WISHES = (*_READERS, "format", "bit-depth")
"""The names of all wishes: options of `stemctl submit`, and columns of a manifest."""
