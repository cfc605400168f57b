"""What a network is to the rest of the separation, and which of them are on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from stemserve.separation.recipes import Network
from stemserve.separation.running import Running
from stemserve.separation.windows import Windows
from stemserve.weights.files import verified


class Model(Protocol):
    """A loaded network."""

    sources: tuple[str, ...]

    def windows(self, overlap: float) -> Windows:
        """The grid that it is heard on."""

    def pieces(self, window: Tensor) -> list[Tensor]:
        """A window [2, samples], cut into what goes through the network at once: of one size."""

    def joined(self, outputs: Sequence[Tensor], samples: int) -> Tensor:
        """The outputs of a window's pieces as that of the window, [sources, 2, samples]."""

    def to(self, device: torch.device) -> None:
        """Move the weights."""

    def __call__(self, batch: Tensor) -> Tensor:
        """Pieces [n, 2, samples] → float32 [n, sources, 2, samples]."""


def load(network: Network, running: Running) -> Model:
    """Read a network's weights, on the CPU.

    Raises:
        PresetUnavailableError: they are not there, or not what they should be.
    """
    path: Path = verified(network.weights)
    if path.suffix == ".onnx":
        from stemserve.separation.mdx import MdxModel

        return MdxModel(path, running)
    from stemserve.separation.demucs_model import DemucsModel

    return DemucsModel(path, running)


class Models:
    """The networks of a preset: read when first needed, on the device as long as there is room."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._read: dict[Network, Model] = {}
        self._resident: list[Network] = []  # the one that was used last at the end
        self.crowded = False
        """Not all that are needed have been on the device at once."""

    def of(self, network: Network) -> Model:
        """A network's model, wherever it is."""
        if network not in self._read:
            self._read[network] = load(network, self.running)
        return self._read[network]

    def fill(self, networks: Iterable[Network]) -> None:
        """Read networks, and bring them to the device as long as there is room."""
        for network in networks:
            model = self.of(network)
            try:
                model.to(self.running.device)
            except torch.OutOfMemoryError:
                model.to(torch.device("cpu"))
            else:
                self._resident.append(network)

    def on_device(self, network: Network) -> Model:
        """A network's model, on the device; others make room for it where they must.

        Raises:
            torch.OutOfMemoryError: there is no room for it even alone.
        """
        model = self.of(network)
        while network not in self._resident:
            try:
                model.to(self.running.device)
            except torch.OutOfMemoryError:
                model.to(torch.device("cpu"))
                if not self.make_room(network):
                    raise
            else:
                self._resident.append(network)
        self._resident.remove(network)
        self._resident.append(network)
        return model

    def make_room(self, needed: Network) -> bool:
        """Take one network off the device, not the ``needed`` one; whether there was one."""
        idle = next((other for other in self._resident if other != needed), None)
        if idle is None or self.running.on_cpu:
            return False
        self.crowded = True
        self._resident.remove(idle)
        self._read[idle].to(torch.device("cpu"))
        torch.cuda.empty_cache()
        return True
