"""The Demucs presets: networks over fixed windows, in a stream.

The networks hear stereo at 44.1 kHz, as it is, without a normalisation that would need the whole
track. Other rates are resampled on the way in and back on the way out; mono goes in on both sides
and comes out as the mean. Of a preset with one network for each source only those run whose
source is wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from stemserve.audio import Block
from stemserve.audio.resample import Resampler
from stemserve.separation.checkpoint import load_network
from stemserve.separation.presets import Network, Recipe
from stemserve.separation.separators import WHOLE, Reached, Separator, Span
from stemserve.separation.windows import Outputs, Windows, run_windows
from stemserve.weights.files import verified

OVERLAP = 0.25


def load(recipe: Recipe) -> Separator:
    """The separator of a preset whose networks are Demucs checkpoints on this machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    members = [_Member(network, device) for network in recipe.networks]

    def separate(
        blocks: Iterable[Block],
        rate: int,
        stems: Sequence[str],
        span: Span = WHOLE,
        reached: Reached | None = None,
    ) -> Iterator[dict[str, Block]]:
        sources = tuple(
            dict.fromkeys("vocals" if stem == "instrumental" else stem for stem in stems)
        )
        running = [member for member in members if set(member.sources) & set(sources)]
        at = 0
        for part in _separate(blocks, rate, stems, sources, running):
            size = len(next(iter(part.values())))
            first, last = max(0, span.start - at), size
            if span.end is not None:
                last = min(last, span.end - at)
            at += size
            if first < last:
                if reached:
                    reached(at - size + last - span.start)
                yield {stem: sound[first:last] for stem, sound in part.items()}
            if span.end is not None and at >= span.end:
                return

    return separate


class _Member:
    """One network, loaded when it is first needed."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self.sources = network.sources
        self._weights = network.weights
        self._device = device

    @cached_property
    def model(self) -> HTDemucs | HDemucs | Demucs:
        """The network on its device."""
        network = load_network(verified(self._weights))
        network.to(self._device)
        return network

    def hear(self, window: Outputs, sources: Sequence[str]) -> dict[str, Outputs]:
        """Those of ``sources`` that this member answers for, of a window [channels, samples]."""
        with torch.inference_mode():
            out = self.model(torch.from_numpy(window)[None].to(self._device))[0]
        names = list(self.model.sources)
        return {s: out[names.index(s)].cpu().numpy() for s in sources if s in self.sources}


def _separate(
    blocks: Iterable[Block],
    rate: int,
    stems: Sequence[str],
    sources: Sequence[str],
    members: Sequence[_Member],
) -> Iterator[dict[str, Block]]:
    model = members[0].model
    windows = Windows(int(model.segment * model.samplerate), OVERLAP)
    mix = _Kept(blocks)

    def network(window: Outputs) -> Outputs:
        heard: dict[str, Outputs] = {}
        for member in members:
            heard |= member.hear(window, sources)
        return np.stack([heard[source] for source in sources])

    heard = run_windows(_resampled(mix, rate, model.samplerate), windows, network)
    back = [Resampler(model.samplerate, rate, 2) for _ in sources]
    for outputs in heard:
        parts = [out.T for out in outputs]
        if rate != model.samplerate:
            parts = [r.feed(part) for r, part in zip(back, parts, strict=True)]
        yield from mix.stems(dict(zip(sources, parts, strict=True)), stems)
    if rate != model.samplerate:
        parts = [resampler.finish(mix.frames) for resampler in back]
        yield from mix.stems(dict(zip(sources, parts, strict=True)), stems)


class _Kept:
    """The input on its way to the networks, kept until their answer to it has come back."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.frames = 0
        self._blocks = blocks
        self._waiting: list[Block] = []

    def __iter__(self) -> Iterator[Block]:
        for block in self._blocks:
            self.frames += len(block)
            self._waiting.append(block)
            yield block

    def stems(self, heard: dict[str, Block], stems: Sequence[str]) -> Iterator[dict[str, Block]]:
        """The next part of the wanted stems, with as many channels as the input."""
        frames = len(next(iter(heard.values())))
        if not frames:
            return
        mix = np.concatenate(self._waiting)
        self._waiting = [mix[frames:]]
        mix = mix[:frames]
        if mix.shape[1] == 1:
            heard = {name: part.mean(axis=1, keepdims=True) for name, part in heard.items()}
        yield {
            stem: mix - heard["vocals"] if stem == "instrumental" else heard[stem] for stem in stems
        }


def _resampled(blocks: Iterable[Block], rate: int, to_rate: int) -> Iterator[Block]:
    """Stereo at another rate."""
    resampler = Resampler(rate, to_rate, 2)
    for block in blocks:
        stereo = np.repeat(block, 2, axis=1) if block.shape[1] == 1 else block
        yield stereo if rate == to_rate else resampler.feed(stereo)
    if rate != to_rate:
        yield resampler.finish()
