"""From songs to tracks: what was asked, settled by what the workers say that they can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stemserve.schema import Preset, Status

from stemctl.inputs import Song
from stemctl.licences import check_granted
from stemctl.track import Track
from stemctl.wanted import find_preset, settle


@dataclass(frozen=True)
class Plan:
    """The tracks of a run, and which workers can do which of them."""

    tracks: tuple[Track, ...]
    serves: Mapping[str, frozenset[str]]
    """By slot: the presets of this run that the worker can serve; none has an empty set."""
    lacking: Mapping[str, str]
    """By slot: which presets of this run the worker cannot serve, and why."""


def make_plan(songs: Sequence[Song], statuses: Mapping[str, Status], *, granted: bool) -> Plan:
    """Settle what is wanted of each song.

    Args:
        songs: The inputs that can be used.
        statuses: What each worker that answers says of itself, by slot; one at least.
        granted: Refuse presets whose weights carry no grant.

    Raises:
        InputError: presets or stems that no worker can serve, or that are refused.
    """
    presets: dict[str | None, Preset] = {}
    serves: dict[str, set[str]] = {slot: set() for slot in statuses}
    lacking: dict[str, list[str]] = {}
    for name in dict.fromkeys(song.wishes.preset for song in songs):
        preset, without = find_preset(name, statuses)
        presets[name] = preset
        able = statuses.keys() - without.keys()
        if granted:
            check_granted(preset.name, [statuses[slot] for slot in able])
        for slot in able:
            serves[slot].add(preset.name)
        for slot, reason in without.items():
            lacking.setdefault(slot, []).append(reason)
    wanted = {
        wishes: settle(wishes, presets[wishes.preset])
        for wishes in dict.fromkeys(song.wishes for song in songs)
    }
    return Plan(
        tracks=tuple(
            Track(song.name, song.place, wanted[song.wishes], song.path, song.url) for song in songs
        ),
        serves={slot: frozenset(names) for slot, names in serves.items() if names},
        lacking={slot: "; ".join(dict.fromkeys(reasons)) for slot, reasons in lacking.items()},
    )
