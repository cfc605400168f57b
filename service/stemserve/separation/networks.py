"""The presets that are made of networks, as separators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from stemserve.audio import Block
from stemserve.separation.batches import Batches
from stemserve.separation.model import Models
from stemserve.separation.rates import RATE, Back, Conversion, Kept
from stemserve.separation.recipes import Member, Recipe
from stemserve.separation.running import Running, running
from stemserve.separation.span import WHOLE, Reached, Separator, Span
from stemserve.separation.stages import Sound, Stage, Stream, TwoStages, Work
from stemserve.separation.windows import Windows

STRETCH_SECONDS = 5.0
"""Sound that is given to all networks before any gets more, on a CPU."""
GPU_STRETCH_SECONDS = 60.0
"""The same on a GPU, where windows go through many at once."""
CROWDED_STRETCH_SECONDS = 120.0
"""The same when they take turns on the device: each is then moved there once in so much sound."""


def load(recipe: Recipe, how: Running | None = None, *, at_once: bool = False) -> Separator:
    """The separator of a preset made of networks.

    Args:
        recipe: the preset.
        how: the device and the rest; what the environment asks for, if it is not given.
        at_once: read all networks, and bring to the device what there is room for; else they are
            read when they are first needed.
    """
    how = how or running()
    models = Models(how)
    if at_once:
        models.fill(recipe.networks)
    batches: dict[Member, Batches] = {}

    def opened(members: Sequence[Member]) -> list[tuple[Member, Batches, Windows]]:
        return [
            (
                member,
                batches.setdefault(member, Batches(member, models)),
                models.of(member.network).windows(member.overlap),
            )
            for member in members
        ]

    def separate(
        blocks: Iterable[Block],
        rate: int,
        stems: Sequence[str],
        span: Span = WHOLE,
        reached: Reached | None = None,
    ) -> Iterator[dict[str, Block]]:
        conversion = Conversion(rate, span)

        def tell(samples: float) -> None:
            if reached:
                reached(samples * rate / RATE)

        work = Work(conversion.heard, tell)
        members, band = (opened(part) for part in recipe.heard(tuple(stems)))
        stream: Stream = (
            TwoStages(members, band, conversion.heard, work)
            if band
            else Stage(members, conversion.heard, work)
        )
        yield from _separate(blocks, conversion, stems, stream, models)

    return separate


def _separate(
    blocks: Iterable[Block],
    conversion: Conversion,
    stems: Sequence[str],
    stream: Stream,
    models: Models,
) -> Iterator[dict[str, Block]]:
    span = conversion.span
    kept = Kept(blocks, conversion.begin)
    back = Back(conversion)
    at = conversion.begin
    for sound in _through(conversion.to_networks(kept), stream, models):
        sources = back.feed({name: part.T.cpu().numpy() for name, part in sound.items()})
        for part in _stems(sources, kept, stems, stream.remainder):
            yield from _inside(part, at, span)
            at += len(next(iter(part.values())))
            if span.end is not None and at >= span.end:
                return
    rest = back.finish(kept.frames - conversion.begin)
    for part in _stems(rest, kept, stems, stream.remainder):
        yield from _inside(part, at, span)


def _through(blocks: Iterable[Block], stream: Stream, models: Models) -> Iterator[Sound]:
    """The sources of a sound at 44.1 kHz, in the span that the stream was made for."""
    start, end = stream.needs.start, stream.needs.end
    at = 0
    held: list[Block] = []

    def fed() -> Tensor:
        sound = _on_device(held, models.running)
        held.clear()
        return sound

    for block in blocks:
        inside = block[max(0, start - at) : None if end is None else max(0, end - at)]
        at += len(block)
        if len(inside):
            held.append(inside)
        complete = end is not None and at >= end
        if held and (complete or sum(map(len, held)) >= _stretch(models) * RATE):
            sound = stream.feed(fed())
            if sound is not None:
                yield sound
        if complete:
            break
    if held:
        sound = stream.feed(fed())
        if sound is not None:
            yield sound
    sound = stream.finish()
    if sound is not None:
        yield sound


def _on_device(blocks: Sequence[Block], how: Running) -> Tensor:
    """Consecutive blocks as [2, samples]; pinned on the way to a GPU."""
    sound = torch.from_numpy(np.concatenate(blocks).T.copy())
    return sound if how.on_cpu else sound.pin_memory().to(how.device, non_blocking=True)


def _stretch(models: Models) -> float:
    """Seconds of sound that are given to all networks before any gets more."""
    if models.crowded:
        return CROWDED_STRETCH_SECONDS
    return STRETCH_SECONDS if models.running.on_cpu else GPU_STRETCH_SECONDS


def _stems(
    sources: dict[str, Block], kept: Kept, stems: Sequence[str], remainder: str | None
) -> Iterator[dict[str, Block]]:
    """The next part of the wanted stems, with as many channels as the input.

    What is the mix less other stems is worked out here, at the input's own rate: so stems add up to
    the input exactly, whatever resampling does.
    """
    frames = len(next(iter(sources.values()))) if sources else 0
    if not frames:
        return
    mix = kept.take(frames)
    if mix.shape[1] == 1:
        sources = {name: part.mean(axis=1, keepdims=True) for name, part in sources.items()}
    part = dict(sources)
    if "instrumental" in stems:
        part["instrumental"] = mix - sources["vocals"]
    if remainder is not None and remainder in stems:
        part[remainder] = reduce(np.subtract, sources.values(), mix)
    yield {stem: part[stem] for stem in stems}


def _inside(part: dict[str, Block], at: int, span: Span) -> Iterator[dict[str, Block]]:
    """What of a part that begins at frame ``at`` lies in the span."""
    size = len(next(iter(part.values())))
    first = max(0, span.start - at)
    last = size if span.end is None else min(size, span.end - at)
    if first < last:
        yield {stem: sound[first:last] for stem, sound in part.items()}
