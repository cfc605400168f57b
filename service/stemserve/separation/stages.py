"""The recipes at work: members hear a stream, their means are formed, stems come out of the means.

A stage needs more samples than it answers for, and the second stage needs the first's answer for
all those: so spans are worked out from the end, samples then flow from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from stemserve.separation.batches import Batches
from stemserve.separation.recipes import Member
from stemserve.separation.span import Span
from stemserve.separation.streams import Crop, Join, covering
from stemserve.separation.windows import Pass, Windows

Sound = dict[str, Tensor]
"""By name of the source, [2, samples] each; all of one length."""


class Work:
    """How far the passes are, in samples of the wanted span, each counting by its cost."""

    def __init__(self, span: Span, tell: Callable[[float], None]) -> None:
        self._span, self._tell = span, tell
        self._costs: list[float] = []
        self._done: list[int] = []

    def counter(self, cost: float) -> Callable[[int], None]:
        """What a pass tells up to which sample it is."""
        at = len(self._costs)
        self._costs.append(cost)
        self._done.append(0)

        def count(sample: int) -> None:
            end = sample if self._span.end is None else min(sample, self._span.end)
            self._done[at] = max(self._done[at], end - self._span.start)
            done = sum(c * d for c, d in zip(self._costs, self._done, strict=True))
            self._tell(done / sum(self._costs))

        return count


class Stage:
    """Members that hear the same sound: gives the weighted mean of what they hear."""

    remainder: str | None = None

    def __init__(
        self, members: Sequence[tuple[Member, Batches, Windows]], span: Span, work: Work
    ) -> None:
        self._members = [member for member, _, _ in members]
        self.needs = covering(windows.needs(span) for _, _, windows in members)
        """The span of samples that it must be fed."""
        self._passes = [
            Pass(windows, batches.hear, span, self.needs.start, work.counter(member.cost))
            for member, batches, windows in members
        ]
        self._join = Join(str(at) for at in range(len(members)))

    def feed(self, sound: Tensor) -> Sound | None:
        """Take [2, samples]; give what is finished."""
        for at, network in enumerate(self._passes):
            self._join.put(str(at), network.feed(sound))
        return self._means()

    def finish(self) -> Sound | None:
        """The rest, after the last samples."""
        for at, network in enumerate(self._passes):
            self._join.put(str(at), network.finish())
        return self._means()

    def _means(self) -> Sound | None:
        heard = self._join.take()
        if heard is None:
            return None
        sums: Sound = {}
        totals: dict[str, float] = {}
        for member, outputs in zip(self._members, heard.values(), strict=True):
            for (source, weight), output in zip(member.counts.items(), outputs, strict=True):
                weighed = output if len(self._members) == 1 else weight * output
                sums[source] = sums[source] + weighed if source in sums else weighed
                totals[source] = totals.get(source, 0) + weight
        if len(self._members) == 1:
            return sums
        return {source: total / totals[source] for source, total in sums.items()}


class Stream(Protocol):
    """The mix in, all the sources that can be told from it out."""

    remainder: str | None
    """A source that is not given: it is what all others leave of the mix."""

    @property
    def needs(self) -> Span:
        """The samples that it must be fed."""

    def feed(self, sound: Tensor) -> Sound | None:
        """Take [2, samples]; give what is finished."""

    def finish(self) -> Sound | None:
        """The rest, after the last samples."""


class TwoStages:
    """The ensemble: vocals from the mix, the band's stems from what is left without them."""

    remainder: str | None = "bass"

    def __init__(
        self,
        voice: Sequence[tuple[Member, Batches, Windows]],
        band: Sequence[tuple[Member, Batches, Windows]],
        span: Span,
        work: Work,
    ) -> None:
        self._band = Stage(band, span, work)
        self._voice = Stage(voice, self._band.needs, work)
        self.needs = self._voice.needs
        self._mix_for_voice = Crop(self._band.needs, self.needs.start)
        self._with_voice = Join(("mix", "vocals"))
        self._wanted_rest = Crop(span, self._band.needs.start)
        self._wanted_vocals = Crop(span, self._band.needs.start)
        self._with_band = Join(("rest", "vocals", "drums", "bass", "other"))

    def feed(self, sound: Tensor) -> Sound | None:
        """Take [2, samples]; give what is finished."""
        self._with_voice.put("mix", self._mix_for_voice.feed(sound))
        self._hear_band(self._voice.feed(sound))
        return self._mixed_down()

    def finish(self) -> Sound | None:
        """The rest, after the last samples."""
        self._hear_band(self._voice.finish())
        self._put_band(self._band.finish())
        return self._mixed_down()

    def _hear_band(self, voice: Sound | None) -> None:
        if voice is not None:
            self._with_voice.put("vocals", voice["vocals"])
        known = self._with_voice.take()
        if known is not None:
            rest = known["mix"] - known["vocals"]
            self._with_band.put("rest", self._wanted_rest.feed(rest))
            self._with_band.put("vocals", self._wanted_vocals.feed(known["vocals"]))
            self._put_band(self._band.feed(rest))

    def _put_band(self, band: Sound | None) -> None:
        for source, part in (band or {}).items():
            self._with_band.put(source, part)

    def _mixed_down(self) -> Sound | None:
        known = self._with_band.take()
        return None if known is None else mixdown(known["vocals"], known["rest"], known)


def mixdown(vocals: Tensor, rest: Tensor, means: Sound) -> Sound:
    """The last step of the ensemble. ``rest``: the mix without the vocals.

    Each stem is told twice: by its mean, and by what is left of the mix when the others' means are
    taken out of it. The bass is not given: it is what the other stems leave.
    """
    drums, bass, other = means["drums"], means["bass"], means["other"]
    drums_told = ((rest - bass - other).clamp(-1, 1) + 2 * drums) / 3
    bass_told = ((rest - drums - other).clamp(-1, 1) + 2 * bass) / 3
    other = rest - bass_told - drums_told
    drums = rest - bass_told - other
    return {"vocals": vocals, "drums": drums, "other": other}
