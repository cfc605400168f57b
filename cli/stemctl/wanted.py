"""What a run asks of each of its tracks: preset, stems and format, as wishes and as settled.

Names are checked before anything is sent, against what the workers themselves say they can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict
from stemserve.schema import (
    BIT_DEPTHS,
    DEFAULT_DEPTHS,
    STEM_FILE_STEMS,
    BitDepth,
    Preset,
    PresetName,
    Status,
    StemFormat,
    StemName,
    derived_stems,
    file_names,
)

from stemctl.errors import InputError

ALL_STEMS = "all"
TWO_STEMS = ("vocals", "instrumental")


class Wishes(BaseModel):
    """What is asked of a track before the workers have said what they can do."""

    model_config = ConfigDict(frozen=True)

    preset: str | None = None
    """None: the workers' own."""
    stems: tuple[str, ...] = ()
    """Empty: the usual ones."""
    format: StemFormat = StemFormat.WAV
    bit_depth: BitDepth | None = DEFAULT_DEPTHS[StemFormat.WAV]


class Wanted(BaseModel):
    """What is asked of a track, with all defaults filled in."""

    model_config = ConfigDict(frozen=True)

    preset: PresetName
    stems: tuple[StemName, ...]
    format: StemFormat
    bit_depth: BitDepth | None

    def __str__(self) -> str:
        depth = f" {self.bit_depth} bit" if self.bit_depth else ""
        return f"{', '.join(self.stems)} ({self.preset}, {self.format}{depth})"

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files that a track's place then holds."""
        return file_names(self.stems, self.format)


def settle(wishes: Wishes, preset: Preset) -> Wanted:
    """What the wishes come to with their preset; raises as `choose_stems` does."""
    return Wanted(
        preset=preset.name,
        stems=choose_stems(preset, wishes.stems, wishes.format),
        format=wishes.format,
        bit_depth=wishes.bit_depth,
    )


def check_format(name: str, bit_depth: str | None) -> tuple[StemFormat, BitDepth | None]:
    """The format of a name, and the bit depth, or the one that the format has by default.

    Raises:
        InputError: no such format, or it does not hold that bit depth.
    """
    if name not in set(StemFormat):
        raise InputError(_unknown("format", name, [known.value for known in StemFormat]))
    stem_format = StemFormat(name)
    if bit_depth is None:
        return stem_format, DEFAULT_DEPTHS.get(stem_format)
    held = [depth.value for depth in BIT_DEPTHS[stem_format]]
    if bit_depth not in held:
        what = f"holds bit depth {' or '.join(held)}" if held else "has no bit depth"
        raise InputError(f"{name} {what}, not {bit_depth}: see --bit-depth")
    return stem_format, BitDepth(bit_depth)


def find_preset(name: str | None, statuses: Mapping[str, Status]) -> tuple[Preset, dict[str, str]]:
    """The preset of that name (None: the first worker's default), and by slot who cannot serve it.

    Raises:
        InputError: no worker has it, or each that has it lacks something.
    """
    name = name or next(iter(statuses.values())).default_preset
    by_slot = {
        slot: next((preset for preset in status.presets if preset.name == name), None)
        for slot, status in statuses.items()
    }
    able = [preset for preset in by_slot.values() if preset and preset.available]
    lacking = {
        slot: f"has no preset {name}" if preset is None else f"{name}: {preset.lacks}"
        for slot, preset in by_slot.items()
        if preset is None or not preset.available
    }
    if able:
        return able[0], lacking
    if any(by_slot.values()):
        reasons = dict.fromkeys(preset.lacks or "" for preset in by_slot.values() if preset)
        raise InputError(f"no worker can serve preset {name}: {'; '.join(reasons)}")
    names = dict.fromkeys(p.name for status in statuses.values() for p in status.presets)
    raise InputError(_unknown("preset", name, list(names)))


def choose_stems(
    preset: Preset, names: Sequence[str], stem_format: StemFormat = StemFormat.WAV
) -> tuple[str, ...]:
    """Which stems are wanted, in the preset's order, derived ones after them.

    None named: the usual two; in a stem file, the four that it holds.

    Raises:
        InputError: the preset has no such stem, or a stem file holds others.
    """
    derived = derived_stems(preset.stems)
    known = (*preset.stems, *derived)
    if stem_format is StemFormat.STEM_MP4:
        if set(names or STEM_FILE_STEMS) - {ALL_STEMS} not in (set(), set(STEM_FILE_STEMS)):
            raise InputError(f"{stem_format} holds {', '.join(STEM_FILE_STEMS)}: leave out --stems")
        names = STEM_FILE_STEMS
    for name in names:
        if name not in known and name != ALL_STEMS:
            near = list(derived) if name.startswith("no_") else preset.stems
            raise InputError(_unknown(f"stem in preset {preset.name}", name, near))
    chosen = set(names or (TWO_STEMS if set(TWO_STEMS) <= set(known) else [ALL_STEMS]))
    if ALL_STEMS in chosen:
        chosen |= set(preset.stems)
    return tuple(stem for stem in known if stem in chosen)


def _unknown(kind: str, name: str, there: Sequence[str]) -> str:
    near = get_close_matches(name, there, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"there is no {kind} {name}: {guess}There is {', '.join(there)}"
