"""What a run asks of each of its tracks, with all defaults filled in.

Names are checked before anything is sent, against what the workers themselves say they can do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from stemserve.schema import (
    SIDECAR,
    STEM_FILE_STEMS,
    BitDepth,
    Clip,
    Preset,
    PresetName,
    Range,
    Status,
    StemFormat,
    StemName,
    derived_stems,
    file_names,
)

from stemctl.asked.wishes import Wishes
from stemctl.asked.words import unknown
from stemctl.errors import InputError

ALL_STEMS = "all"
TWO_STEMS = ("vocals", "instrumental")


class Wanted(BaseModel):
    """What is asked of a track, with all defaults filled in."""

    model_config = ConfigDict(frozen=True)

    preset: PresetName
    stems: tuple[StemName, ...]
    format: StemFormat
    bit_depth: BitDepth | None
    mono: bool = False
    clip: Clip = Clip.NONE
    strict: bool | None = None
    """None: as the worker is set."""
    range: Range | None = None
    sidecar: bool = False

    def __str__(self) -> str:
        depth = f" {self.bit_depth} bit" if self.bit_depth else ""
        how = [self.preset, f"{self.format}{depth}"]
        how += ["mono"] if self.mono else []
        how += [f"clip {self.clip}"] if self.clip is not Clip.NONE else []
        how += [] if self.strict is None else ["strict" if self.strict else "not strict"]
        how += [] if self.range is None else [span_text(self.range)]
        how += ["sidecar"] if self.sidecar else []
        return f"{', '.join(self.stems)} ({', '.join(how)})"

    @property
    def file_names(self) -> tuple[str, ...]:
        """The worker's results that are wanted."""
        return (*file_names(self.stems, self.format), *([SIDECAR] if self.sidecar else []))

    @property
    def asked(self) -> dict[str, Any]:
        """The same as fields of a job's request; what has its default there is left out."""
        return self.model_dump(exclude_defaults=True, exclude={"sidecar"})


def settle(wishes: Wishes, preset: Preset) -> Wanted:
    """What the wishes come to with their preset; raises as `choose_stems` does."""
    return Wanted(
        preset=preset.name,
        stems=choose_stems(preset, wishes.stems, wishes.format),
        format=wishes.format,
        bit_depth=wishes.bit_depth,
        mono=wishes.mono,
        clip=wishes.clip,
        strict=wishes.strict,
        range=wishes.range,
        sidecar=wishes.sidecar,
    )


def span_text(span: Range) -> str:
    """A range as it is written on the command line, in seconds."""
    end = "" if span.end_seconds is None else f"{span.end_seconds:g}"
    return f"{span.start_seconds:g}-{end}"


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
    raise InputError(unknown("preset", name, list(names)))


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
            raise InputError(unknown(f"stem in preset {preset.name}", name, near))
    chosen = set(names or (TWO_STEMS if set(TWO_STEMS) <= set(known) else [ALL_STEMS]))
    if ALL_STEMS in chosen:
        chosen |= set(preset.stems)
    return tuple(stem for stem in known if stem in chosen)
