"""Sending windows through a network, as many at once as the device has memory for.

How many that is follows from what the first takes. When memory runs out all the same, half as many
go on; a job fails for memory only when a single window, alone on the device, has failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from stemserve.errors import OutOfMemoryError
from stemserve.separation.model import Model, Models
from stemserve.separation.recipes import Member

MOST = 32
"""Windows of a batch wait for each other, and a device is full long before this many."""
_SHARE = 0.8
"""Of the free memory that batches may take: other processes and fragmentation need some."""


class Batches:
    """One member's network, on pieces of windows."""

    def __init__(self, member: Member, models: Models) -> None:
        self._member, self._models = member, models
        self.at_once: int | None = None
        """Pieces in a batch; ``None`` as long as none has been through."""

    def hear(self, windows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Windows [2, samples] → for each [counted sources, 2, samples].

        Raises:
            OutOfMemoryError: memory does not suffice for one piece.
        """
        model = self._models.of(self._member.network)
        sizes: deque[tuple[int, int]] = deque()

        def pieces() -> Iterator[Tensor]:
            for window in windows:
                cut = model.pieces(window)
                sizes.append((window.shape[-1], len(cut)))
                yield from cut

        outputs: list[Tensor] = []
        for out in self._through(pieces()):
            outputs.append(out)
            if len(outputs) == sizes[0][1]:
                yield model.joined(outputs, sizes.popleft()[0])
                outputs.clear()

    def _through(self, pieces: Iterator[Tensor]) -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        while True:
            waiting += islice(pieces, max(0, (self.at_once or 1) - len(waiting)))
            if not waiting:
                return
            # A window that the track ends in may be shorter than those before it.
            batch = waiting[: self.at_once or 1]
            alike = next(
                (n for n, piece in enumerate(batch) if piece.shape != batch[0].shape), None
            )
            batch = batch[:alike]
            outputs = self._batch(batch)
            if outputs is not None:
                yield from outputs
                del waiting[: len(batch)]

    def _batch(self, batch: list[Tensor]) -> Tensor | None:
        """The outputs of a batch; ``None`` when memory did not suffice and something was done."""
        device = self._models.running.device
        try:
            model = self._models.on_device(self._member.network)
            before = self._begin_measuring()
            outputs = self._heard(model, torch.stack(batch).to(device))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
        else:
            if self.at_once is None:
                self.at_once = self._fitting(before, batch[0])
            return outputs
        if len(batch) > 1:
            self.at_once = len(batch) // 2
        elif not self._models.make_room(self._member.network):
            raise OutOfMemoryError(
                f"A single window of {self._member.network.weights.published} does not fit into "
                f"the memory of {device}. Take a preset with smaller windows or a larger machine."
            )
        return None

    def _heard(self, model: Model, batch: Tensor) -> Tensor:
        member = self._member
        with torch.inference_mode():
            if member.both_polarities and not self._models.running.on_cpu:
                straight, turned = model(torch.cat([batch, -batch])).chunk(2)
                out = (straight - turned) / 2
            elif member.both_polarities:
                out = (model(batch) - model(-batch)) / 2
            elif member.turned:
                out = batch[:, None] + model(-batch)
            else:
                out = model(batch)
            names = list(model.sources)
            if member.folded:
                for name in ("guitar", "piano"):
                    out[:, names.index("other")] += out[:, names.index(name)]
            wanted = [names.index(source) for source in member.counts]
            return out if len(wanted) == len(names) else out[:, wanted]

    def _begin_measuring(self) -> int:
        if self.at_once is not None or self._models.running.on_cpu:
            return 0
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def _fitting(self, before: int, piece: Tensor) -> int:
        """How many pieces at once will do, after one has been through."""
        running = self._models.running
        if running.on_cpu:  # one keeps the cores busy; two took more than twice as long
            return 1
        taken = max(1, torch.cuda.max_memory_allocated() - before)
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        fitting = int((torch.cuda.mem_get_info()[0] + unused) * _SHARE // taken)
        allowed = running.windows_at_once(piece.shape[-1]) or MOST
        return max(1, min(fitting, allowed, MOST))


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return any(words in said for words in ("out of memory", "not enough memory", "can't allocate"))
