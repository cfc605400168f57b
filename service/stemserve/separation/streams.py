"""Bringing streams together that come with different delays."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from stemserve.separation.span import Span


class Join:
    """Several streams that begin at the same sample: gives of all what each has given."""

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting: dict[str, list[Tensor]] = {name: [] for name in names}

    def put(self, name: str, part: Tensor | None) -> None:
        """The next part [..., samples] of a stream."""
        if part is not None and part.shape[-1]:
            self._waiting[name].append(part)

    def take(self) -> dict[str, Tensor] | None:
        """As many samples of every stream as there are of all; ``None`` when that is none."""
        size = min(sum(part.shape[-1] for part in parts) for parts in self._waiting.values())
        if not size:
            return None
        taken = {}
        for name, parts in self._waiting.items():
            whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
            taken[name] = whole[..., :size]
            # A copy: a view would keep alive what was taken.
            self._waiting[name] = [whole[..., size:].clone()] if whole.shape[-1] > size else []
        return taken


class Crop:
    """What of a stream lies in a span."""

    def __init__(self, span: Span, begin: int) -> None:
        self._span, self._at = span, begin

    def feed(self, part: Tensor) -> Tensor:
        """The samples of ``part`` [..., samples] that are in the span."""
        first = max(0, self._span.start - self._at)
        last = part.shape[-1] if self._span.end is None else max(0, self._span.end - self._at)
        self._at += part.shape[-1]
        return part[..., first:last]


def covering(spans: Iterable[Span]) -> Span:
    """The smallest span that holds all of ``spans``."""
    spans = list(spans)
    ends = [span.end for span in spans]
    return Span(
        min(span.start for span in spans),
        None if any(end is None for end in ends) else max(end for end in ends if end is not None),
    )
