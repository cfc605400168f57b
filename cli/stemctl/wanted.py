"""What a run asks of every track: preset, stems and format, with their defaults filled in.

Names are checked before anything is sent, against what the workers themselves say they can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from pydantic import BaseModel, ConfigDict
from stemserve.schema import (
    BIT_DEPTHS,
    BitDepth,
    Preset,
    PresetName,
    Status,
    StemFormat,
    StemName,
)

from stemctl.errors import InputError

ALL_STEMS = "all"
TWO_STEMS = ("vocals", "instrumental")
DEFAULT_DEPTHS = {StemFormat.WAV: BitDepth.F32, StemFormat.FLAC: BitDepth.B16, StemFormat.MP3: None}


class Wanted(BaseModel):
    """What a run asks of every track."""

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
        return tuple(f"{stem}.{self.format}" for stem in self.stems)


def check_format(name: str, bit_depth: str | None) -> tuple[StemFormat, BitDepth | None]:
    """The format of a name, and the bit depth, or the one that the format has by default.

    Raises:
        InputError: no such format, or it does not hold that bit depth.
    """
    if name not in set(StemFormat):
        raise InputError(_unknown("format", name, [known.value for known in StemFormat]))
    stem_format = StemFormat(name)
    if bit_depth is None:
        return stem_format, DEFAULT_DEPTHS[stem_format]
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


def choose_stems(preset: Preset, names: Sequence[str]) -> tuple[str, ...]:
    """Which stems of the preset are wanted, in the preset's order; none named: the usual two.

    Raises:
        InputError: the preset has no such stem.
    """
    for name in names:
        if name not in preset.stems and name != ALL_STEMS:
            raise InputError(_unknown(f"stem in preset {preset.name}", name, preset.stems))
    chosen = set(names or (TWO_STEMS if set(TWO_STEMS) <= set(preset.stems) else [ALL_STEMS]))
    return tuple(stem for stem in preset.stems if stem in chosen or ALL_STEMS in chosen)


def _unknown(kind: str, name: str, there: Sequence[str]) -> str:
    near = get_close_matches(name, there, n=2, cutoff=0.5)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return f"there is no {kind} {name}: {guess}There is {', '.join(there)}"
