"""From songs to tracks: what was asked, settled by what the workers say that they can do."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from stemserve.schema import Preset, Status

from stemctl.asked.licences import check_granted
from stemctl.asked.naming import fold, folders_above, printable
from stemctl.asked.track import Track
from stemctl.asked.wanted import Wanted, find_preset, settle
from stemctl.asked.wishes import Wishes
from stemctl.errors import InputError
from stemctl.inputs.find import Song

SHOWN = 5
"""So many collisions are told, and so many rows that ask for the same."""

Key = TypeVar("Key", bound=Hashable)


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
    wanted: dict[Wishes, Wanted] = {}
    with _gathered() as gather:
        for name, asking in _grouped(songs, lambda song: song.wishes.preset).items():
            with gather(asking):
                preset, without = find_preset(name, statuses)
                able = statuses.keys() - without.keys()
                if granted:
                    check_granted(preset.name, [statuses[slot] for slot in able])
                presets[name] = preset
                for slot in able:
                    serves[slot].add(preset.name)
                for slot, reason in without.items():
                    lacking.setdefault(slot, []).append(reason)
        for wishes, asking in _grouped(songs, lambda song: song.wishes).items():
            if wishes.preset in presets:
                with gather(asking):
                    wanted[wishes] = settle(wishes, presets[wishes.preset])
    tracks = tuple(_track(song, wanted[song.wishes]) for song in songs)
    _check_collisions(tracks)
    return Plan(
        tracks=tracks,
        serves={slot: frozenset(names) for slot, names in serves.items() if names},
        lacking={slot: "; ".join(dict.fromkeys(reasons)) for slot, reasons in lacking.items()},
    )


def _grouped(songs: Sequence[Song], by: Callable[[Song], Key]) -> dict[Key, list[Song]]:
    groups: dict[Key, list[Song]] = {}
    for song in songs:
        groups.setdefault(by(song), []).append(song)
    return groups


@contextmanager
def _gathered() -> Iterator[Callable[[Sequence[Song]], AbstractContextManager[None]]]:
    """Within, errors over groups of songs are kept; at the end all are raised as one."""
    errors: list[str] = []

    @contextmanager
    def gather(asking: Sequence[Song]) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            rows = list(dict.fromkeys(song.where for song in asking if song.where))
            more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
            errors.append(f"{', '.join(rows[:SHOWN])}{more}: {error}" if rows else str(error))

    yield gather
    if errors:
        raise InputError("\n  ".join(errors))


def _track(song: Song, wanted: Wanted) -> Track:
    template = song.wishes.output
    if template is None:
        place = song.place
        files = [f"{place}/{name}" for name in wanted.file_names]
    else:
        place = template.place(song.source, wanted.preset, wanted.format)
        files = [
            template.path(song.source, wanted.preset, stem, ext)
            for stem, _, ext in (name.partition(".") for name in wanted.file_names)
        ]
    return Track(song.name, place, wanted, tuple(files), song.path, song.url)


def _check_collisions(tracks: Sequence[Track]) -> None:
    """Nothing, if no file would be written twice, or lie where another has to be a folder.

    Raises:
        InputError: that would happen, perhaps only where case or Unicode forms are not told apart.
    """
    owners: dict[str, tuple[Track, str]] = {}
    clashes: list[str] = []
    told: set[str] = set()
    for track in tracks:
        for path in (track.place,) if track.own_folder else track.files:
            other, _ = owners.setdefault(fold(path), (track, path))
            if other is not track and track.place not in told:
                told.add(track.place)
                clashes.append(f"{_told(other)} and {_told(track)}: {path}")
    for key, (track, path) in owners.items():
        for above in folders_above(key):
            if above in owners and track.place not in told:
                told.add(track.place)
                clashes.append(f"{_told(owners[above][0])} and {_told(track)}: {path}")
    if clashes:
        more = f" (and {len(clashes) - SHOWN} more)" if len(clashes) > SHOWN else ""
        raise InputError(
            "--output gives two inputs the same place, or one within the other: "
            f"{'; '.join(clashes[:SHOWN])}{more}. Let it tell them apart, with {{folders}}, "
            "{parent} or {name}"
        )


def _told(track: Track) -> str:
    """Which input it is, for people; a URL may hold a secret."""
    return printable(str(track.path)) if track.path else track.name
