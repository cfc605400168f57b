"""Demucs networks: HTDemucs in windows of 7.8 s, HDemucs in windows of 44 s."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from demucs.htdemucs import HTDemucs
from torch import Tensor

from stemserve.separation.checkpoint import load_network
from stemserve.separation.running import Running
from stemserve.separation.windows import Windows


class DemucsModel:
    """A network from a checkpoint. It hears the mix as it is, at 44.1 kHz."""

    def __init__(self, path: Path, running: Running) -> None:
        # torch's fast path forms the whole matrix of a self-attention (231 MB). Without it the
        # attention goes block by block: on a CPU the network as a whole is a sixth faster.
        torch.backends.mha.set_fastpath_enabled(False)
        self._network = load_network(path)
        self._running = running
        self.sources = tuple(self._network.sources)

    def windows(self, overlap: float) -> Windows:
        """The grid that the network was trained for."""
        network = self._network
        length = int(network.segment * network.samplerate)
        filled = isinstance(network, HTDemucs) and network.use_train_segment
        return Windows(length, overlap, filled=filled)

    def pieces(self, window: Tensor) -> list[Tensor]:
        """What goes through the network at once: the window."""
        return [window]

    def joined(self, outputs: Sequence[Tensor], samples: int) -> Tensor:
        """The window's output."""
        return outputs[0]

    def to(self, device: torch.device) -> None:
        """Move the weights."""
        self._network.to(device)

    def __call__(self, batch: Tensor) -> Tensor:
        """[n, 2, samples] → float32 [n, sources, 2, samples]."""
        return self._running.heard(self._network, batch)
