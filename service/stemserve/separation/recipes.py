"""What a preset is made of, as data: which networks are heard, how, and what their word counts for.

Imports neither torch nor anything of sound, so that the API can tell presets apart too.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from stemserve.weights.files import WeightFile

SOURCES = ("drums", "bass", "other", "vocals")
_NOTHING: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Network:
    """One file of weights, and how dear its network is."""

    weights: WeightFile
    effort: float = 1.0
    """Time for a second of sound without overlap, in times of htdemucs."""


@dataclass(frozen=True)
class Member:
    """One network heard over a track."""

    network: Network
    counts: Mapping[str, float] = field(hash=False)
    """Its sources that are listened to, each with its weight in the mean of all members."""
    overlap: float
    both_polarities: bool = False
    """Heard again with the sign turned; the mean of both answers counts."""
    turned: bool = False
    """Heard with the sign turned only, and taken for all that is not in its answer."""
    folded: bool = False
    """Its guitar and piano are added to its other."""

    def for_(self, sources: AbstractSet[str]) -> Member:
        """The same, listened to for some of its sources only."""
        return replace(self, counts={s: c for s, c in self.counts.items() if s in sources})

    @property
    def cost(self) -> float:
        """Time for a second of sound, in times of the preset htdemucs."""
        passes = (2 if self.both_polarities else 1) / (1 - self.overlap)
        return self.network.effort * passes * (1 - PLAIN_OVERLAP)


@dataclass(frozen=True)
class Recipe:
    """A preset: how it is described, what it gives, and what it needs.

    ``members`` hear the mix. Where there are ``band`` members they hear what is left without the
    vocals, and split it (``ensemble``).
    """

    name: str
    description: str
    stems: tuple[str, ...]
    packages: tuple[str, ...] = ()
    members: tuple[Member, ...] = ()
    band: tuple[Member, ...] = ()
    quality: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    """Reported signal-to-distortion ratio of each stem in dB, on MVSep's Multisong set."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that it needs, each once."""
        return tuple(dict.fromkeys(member.network for member in (*self.members, *self.band)))

    @property
    def weights(self) -> tuple[WeightFile, ...]:
        """The files of weights that it needs, each once."""
        return tuple(dict.fromkeys(network.weights for network in self.networks))

    def heard(self, stems: tuple[str, ...]) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
        """Those of ``members`` and of ``band`` that the stems depend on."""
        if self.band:
            split = bool(set(stems) - {"vocals", "instrumental"})
            return self.members, self.band if split else ()
        wanted = {"vocals" if stem == "instrumental" else stem for stem in stems}
        return tuple(m.for_(wanted) for m in self.members if wanted & m.counts.keys()), ()

    def cost(self, stems: tuple[str, ...]) -> float:
        """About how much longer than the preset htdemucs it takes for some of its stems."""
        members, band = self.heard(stems)
        return sum(member.cost for member in (*members, *band))


PLAIN_OVERLAP = 0.25
"""Overlap of the presets that are not the ensemble."""
