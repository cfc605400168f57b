"""What happens when memory runs out: fewer windows at once, others make room, the work goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stemserve.errors import OutOfMemoryError
from stemserve.separation.batches import Batches
from stemserve.separation.model import Models
from stemserve.separation.recipes import Member, Network
from stemserve.separation.running import Running
from stemserve.separation.windows import Windows
from stemserve.weights.files import WeightFile
from torch import Tensor

SAID = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@dataclass
class Cramped:
    """A stand-in for a network: it knows one source, and has room for so many windows at once."""

    room: int
    error: Exception
    sources: tuple[str, ...] = ("vocals",)
    sizes: list[int] = field(default_factory=list)
    needs_room: Callable[[], bool] = lambda: False

    def windows(self, overlap: float) -> Windows:
        return Windows(4, overlap)

    def pieces(self, window: Tensor) -> list[Tensor]:
        return [window]

    def joined(self, outputs: Sequence[Tensor], samples: int) -> Tensor:
        return outputs[0][..., :samples]

    def to(self, device: torch.device) -> None:
        if device.type != "cpu" and self.needs_room():
            raise torch.OutOfMemoryError

    def __call__(self, batch: Tensor) -> Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise self.error
        return 2 * batch[:, None]


NETWORKS = [Network(WeightFile(f"{name}.th")) for name in "abc"]


def batches(network: Cramped, at_once: int, device: str = "cpu") -> Batches:
    """Windows through a network, so many at once to begin with."""
    models = Models(Running(torch.device(device)))
    models._read[NETWORKS[0]] = network
    ours = Batches(Member(NETWORKS[0], {"vocals": 1}, 0.25), models)
    ours.at_once = at_once
    return ours


@given(
    room=st.integers(1, 9),
    at_once=st.integers(1, 32),
    lengths=st.lists(st.integers(1, 3), max_size=40),
    error=st.sampled_from(SAID),
)
def test_windows_go_on_in_halves(
    room: int, at_once: int, lengths: list[int], error: Exception
) -> None:
    network = Cramped(room, error)
    windows = [torch.full((2, length), float(at)) for at, length in enumerate(lengths)]
    ours = batches(network, at_once)
    heard = list(ours.hear(iter(windows)))
    assert [out.tolist() for out in heard] == [(2 * w[None]).tolist() for w in windows]
    failed = [size for size in network.sizes if size > room]
    assert len(failed) <= 5
    assert failed == sorted(set(failed), reverse=True)


def test_one_window_alone_fails_the_job_and_says_what_to_do() -> None:
    network = Cramped(0, SAID[0])
    with pytest.raises(OutOfMemoryError, match=r"single window of a\.th"):
        list(batches(network, 8).hear([torch.zeros(2, 4)] * 8))
    assert network.sizes == [8, 4, 2, 1]


def test_other_errors_are_no_lack_of_memory() -> None:
    network = Cramped(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        list(batches(network, 8).hear([torch.zeros(2, 4)] * 8))
    assert network.sizes == [8]


def test_the_network_that_was_used_longest_ago_makes_room() -> None:
    on_device: set[str] = set()

    class Heavy(Cramped):
        name = ""

        def to(self, device: torch.device) -> None:
            if device.type == "cpu":
                on_device.discard(self.name)
            elif len(on_device) == 2:
                raise torch.OutOfMemoryError
            else:
                on_device.add(self.name)

    models = Models(Running(torch.device("meta")))
    for network in NETWORKS:
        heavy = Heavy(9, SAID[0])
        heavy.name = network.weights.published
        models._read[network] = heavy
    for at in (0, 1):
        models.on_device(NETWORKS[at])
    assert not models.crowded
    models.on_device(NETWORKS[0])
    models.on_device(NETWORKS[2])
    assert on_device == {"a.th", "c.th"}
    assert models.crowded
