"""The preset that needs no weights: what is panned to the centre is taken for the voice.

It is there to try a system with, on any machine, and does not compete with a network. In each
bin of a short-time spectrum the energy of the sides (left − right) is an estimate of how much of
the middle (left + right) belongs to the band; what remains, within the range of a voice and not
percussive, is the voice. The rest is split by median filtering (Fitzgerald, Harmonic/Percussive
Separation Using Median Filtering, DAFx 2010): drums are what stands upright in the spectrogram,
the bass is what lies flat below some 250 Hz.

A mono input is all centre: there the voice is whatever is neither low nor percussive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stemserve.audio import Block
from stemserve.separation.medians import running_median
from stemserve.separation.presets import STEMS
from stemserve.separation.span import WHOLE, Reached, Span, skipped
from stemserve.separation.spectral import Grid, Slab, Spectra, Synthesis, analyse, triples

__all__ = ["STEMS", "Tuning", "separate"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Tuning:
    """What the separation listens for; times in seconds, frequencies in hertz."""

    frame: float = 0.093
    """Length of a spectrum's window; the power of two nearest to it is taken."""
    flat: float = 0.4
    """Reach of the median along time, which keeps what lasts."""
    upright: float = 120.0
    """Reach of the median along frequency, which keeps what strikes."""
    taps: int = 9
    side_weight: float = 5.0
    """How many times its side energy the band is taken to have in the middle."""
    voice_low: tuple[float, float] = (120.0, 220.0)
    voice_high: tuple[float, float] = (9000.0, 14000.0)
    bass_top: tuple[float, float] = (160.0, 300.0)
    floor: float = 1e-10


@dataclass(frozen=True)
class _Plan:
    """A tuning, worked out for one sample rate."""

    grid: Grid
    flat_spacing: int
    upright_spacing: int
    voice_range: Floats
    bass_range: Floats

    @classmethod
    def of(cls, tuning: Tuning, rate: int) -> _Plan:
        size = max(64, 2 ** round(np.log2(tuning.frame * rate)))
        grid = Grid(size)
        bins = np.arange(size // 2 + 1) * rate / size
        gaps = tuning.taps - 1
        return cls(
            grid,
            max(1, round(tuning.flat * rate / grid.hop / gaps)),
            max(1, round(tuning.upright * size / rate / gaps)),
            _rising(bins, *tuning.voice_low) * (1 - _rising(bins, *tuning.voice_high)),
            1 - _rising(bins, *tuning.bass_top),
        )


_SETTLING = 4
"""Slabs before a span after which nothing tells that the sound began with them: one for the
synthesis, one for each median, and the lead."""


def separate(
    blocks: Iterable[Block],
    rate: int,
    stems: Sequence[str],
    span: Span = WHOLE,
    reached: Reached | None = None,
    tuning: Tuning | None = None,
) -> Iterator[dict[str, Block]]:
    """Separate a stream; see ``separators.Separator``. ``tuning``: what it listens for.

    vocals + instrumental, and vocals + drums + bass + other, are the input to the last bits of
    float32.
    """
    tuning = tuning or Tuning()
    plan = _Plan.of(tuning, rate)
    slab = plan.grid.slab_samples
    begin = max(0, span.start // slab - _SETTLING) * slab
    length = _Counter()
    heard = analyse(length.through(skipped(blocks, begin)), plan.grid)
    given = begin - (plan.grid.size - plan.grid.hop)
    for part in _parts(heard, plan, tuning, set(stems)):
        size = len(next(iter(part.values())))
        last = size if span.end is None else min(size, span.end - given)
        if length.ended:
            last = min(last, begin + length.frames - given)
        first = max(0, span.start - given)
        given += size
        if first < last:
            if reached:
                reached(given - size + last - span.start)
            yield {stem: part[stem][first:last] for stem in stems}
        if span.end is not None and given >= span.end:
            return


class _Counter:
    """How many frames went by, and whether that was all."""

    def __init__(self) -> None:
        self.frames = 0
        self.ended = False

    def through(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            self.frames += len(block)
            yield block
        self.ended = True


@dataclass(frozen=True)
class _Heard:
    """A slab with what the voice's mask needs of it."""

    slab: Slab
    middle: Floats
    """Magnitudes [frames, bins] of left + right."""


@dataclass(frozen=True)
class _Sung:
    """A slab with its voice, [1, frames, bins] and the same on both sides, and what is left."""

    slab: Slab
    voice: Spectra
    band: Spectra
    magnitude: Floats
    """Of the band, its channels added up, [frames, bins]."""


def _parts(
    slabs: Iterable[Slab], plan: _Plan, tuning: Tuning, stems: set[str]
) -> Iterator[dict[str, Block]]:
    split = bool(stems & {"drums", "bass", "other"})
    voice_out, drums_out, bass_out = (Synthesis(plan.grid) for _ in range(3))
    for before, sung, after in triples(_sung(slabs, plan, tuning)):
        mix = sung.slab.mix
        out = {"vocals": np.repeat(voice_out.finish(sung.voice), mix.shape[1], axis=1)}
        out["instrumental"] = mix - out["vocals"]
        if split:
            upright = _percussive(
                plan,
                tuning,
                before.magnitude if before else None,
                sung.magnitude,
                after.magnitude if after else None,
            )
            drums: Spectra = sung.band * upright
            bass: Spectra = (sung.band - drums) * plan.bass_range
            out["drums"] = drums_out.finish(drums)
            out["bass"] = bass_out.finish(bass)
            out["other"] = out["instrumental"] - out["drums"] - out["bass"]
        yield out


def _sung(slabs: Iterable[Slab], plan: _Plan, tuning: Tuning) -> Iterator[_Sung]:
    for before, heard, after in triples(_heard(slabs)):
        spectra = heard.slab.spectra
        upright = _percussive(
            plan,
            tuning,
            before.middle if before else None,
            heard.middle,
            after.middle if after else None,
        )
        mask = _central(spectra, tuning) * plan.voice_range
        mask *= 1 - upright
        voice: Spectra = spectra.mean(axis=0, keepdims=True) * mask
        band = spectra - voice
        yield _Sung(heard.slab, voice, band, np.abs(band).sum(axis=0))


def _heard(slabs: Iterable[Slab]) -> Iterator[_Heard]:
    for slab in slabs:
        yield _Heard(slab, np.abs(slab.spectra.sum(axis=0)))


def _central(spectra: Spectra, tuning: Tuning) -> Floats:
    """How much of each bin of the middle is the voice, 0 to 1, by what the sides hold."""
    if len(spectra) == 1:
        return np.ones(spectra.shape[1:], np.float32)
    middle = _smoothed(np.abs(spectra[0] + spectra[1]) ** 2)
    side = _smoothed(np.abs(spectra[0] - spectra[1]) ** 2)
    share = 1 - tuning.side_weight * side / (middle + np.float32(tuning.floor))
    mask: Floats = np.maximum(share, 0)
    return mask


def _smoothed(power: Floats) -> Floats:
    """Mean over a bin and its two neighbours in frequency."""
    out = power.copy()
    out[:, 1:-1] = (power[:, :-2] + power[:, 1:-1] + power[:, 2:]) / 3
    return out


def _percussive(
    plan: _Plan, tuning: Tuning, before: Floats | None, now: Floats, after: Floats | None
) -> Floats:
    """The share of each bin, 0 to 1, that stands upright rather than lies flat."""
    reach = (tuning.taps - 1) // 2
    halo = reach * plan.flat_spacing
    head = before[-halo:] if before is not None else now[halo:0:-1]
    tail = after[:halo] if after is not None else now[-2 : -halo - 2 : -1]
    flat = running_median(np.concatenate([head, now, tail]), tuning.taps, plan.flat_spacing, axis=0)
    edge = reach * plan.upright_spacing
    upright = running_median(
        np.pad(now, ((0, 0), (edge, edge)), mode="reflect"),
        tuning.taps,
        plan.upright_spacing,
        axis=1,
    )
    flat, upright = flat**2, upright**2
    share: Floats = upright / (upright + flat + np.float32(tuning.floor))
    return share


def _rising(frequencies: NDArray[np.float64], low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, a raised cosine between."""
    place = np.clip((frequencies - low) / (high - low), 0, 1)
    rise: Floats = (0.5 - 0.5 * np.cos(np.pi * place)).astype(np.float32)
    return rise
