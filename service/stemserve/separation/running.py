"""How networks are run on this machine: the device, the numbers they reckon in, threads, memory.

From the environment: ``STEMSERVE_DEVICE`` (``auto``, ``cpu``, ``cuda``), ``STEMSERVE_PRECISION``
(``fast``, ``exact``), ``STEMSERVE_THREADS`` (of the CPU; share the cores out where several workers
run on one machine), ``STEMSERVE_CHUNK_SIZE`` (samples that go through a network at once, at most).

None of it is part of a result's meaning; half precision alone moves it, by some thousandths.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch
from torch import Tensor

from stemserve.errors import SettingsError

PRECISION_VARIABLE = "STEMSERVE_PRECISION"
THREADS_VARIABLE = "STEMSERVE_THREADS"
DEVICE_VARIABLE = "STEMSERVE_DEVICE"
CHUNK_VARIABLE = "STEMSERVE_CHUNK_SIZE"


class Precision(StrEnum):
    """What the networks reckon in. Spectra, sums and the mixdown are float32 always."""

    EXACT = "exact"
    """float32 throughout."""
    FAST = "fast"
    """Half precision in what the device does faster in it; on others the same as ``exact``."""


@dataclass(frozen=True)
class Running:
    """How to run."""

    device: torch.device
    half: torch.dtype | None = None
    """The type of half precision; ``None``: float32."""
    chunk_size: int | None = None
    """The template's word for how much sound goes through at once, in samples."""

    @property
    def on_cpu(self) -> bool:
        """Whether there is no GPU to run on."""
        return self.device.type == "cpu"

    def heard(self, network: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        """A network's output in float32; what overflows in half precision is reckoned again."""
        if self.half is None:
            return network(batch)
        with torch.autocast(batch.device.type, self.half):
            out = network(batch).float()
        return out if torch.isfinite(out).all() else network(batch)

    def windows_at_once(self, length: int) -> int | None:
        """How many windows of so many samples ``chunk_size`` allows; ``None``: what fits."""
        return None if self.chunk_size is None else max(1, self.chunk_size // length)

    def described(self) -> str:
        """For a log."""
        numbers = "float32" if self.half is None else f"{self.half}".removeprefix("torch.")
        said = f"on {self.device} in {numbers}"
        if self.on_cpu:
            said += f", {torch.get_num_threads()} threads"
        if self.chunk_size is not None:
            windows = self.windows_at_once(DEMUCS_WINDOW)
            said += (
                f"; chunk size {self.chunk_size}: {windows} Demucs windows of 7.8 s at most go "
                "through at once (the windows themselves are part of the result and stay as they "
                "are)"
            )
        return said


DEMUCS_WINDOW = 343_980
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's ``malloc.h``."""


def running() -> Running:
    """What the environment asks for, as far as this machine has it.

    Raises:
        SettingsError: a variable has no usable value.
    """
    device = _device(os.environ.get(DEVICE_VARIABLE) or "auto")
    precision = os.environ.get(PRECISION_VARIABLE) or Precision.FAST
    try:
        half = half_type(device) if Precision(precision) is Precision.FAST else None
    except ValueError:
        raise SettingsError(
            f"{PRECISION_VARIABLE}: {precision!r} is neither exact nor fast."
        ) from None
    _set_threads()
    if device.type == "cpu":
        _keep_memory()
    # torch lets cuDNN round to TF32 (10 bits) otherwise, which is not float32.
    torch.backends.cudnn.allow_tf32 = half is not None
    return Running(device, half, _count(CHUNK_VARIABLE))


def half_type(device: torch.device) -> torch.dtype | None:
    """The half precision that ``device`` is faster with; ``None`` when it is with none."""
    if device.type == "cuda":
        return torch.float16
    features: dict[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # torch before 2.9 cannot tell
    return torch.bfloat16 if features.get("avx512_bf16") or features.get("amx_bf16") else None


def _device(name: str) -> torch.device:
    if name not in {"auto", "cpu", "cuda"}:
        raise SettingsError(f"{DEVICE_VARIABLE}: {name!r} is none of auto, cpu and cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"{DEVICE_VARIABLE} asks for cuda, and torch finds no CUDA device.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _count(variable: str) -> int | None:
    said = os.environ.get(variable)
    if not said:
        return None
    if not said.isdecimal() or not int(said):
        raise SettingsError(f"{variable}: {said!r} is no number of 1 or more.")
    return int(said)


@cache
def _keep_memory() -> None:
    """Let the C library keep what a network has let go of, for its next layer and window.

    glibc gives large pieces back to the system at once and has to ask for them again; that took a
    tenth to a sixth of a window's time. What a process holds at most hardly grows by it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@cache
def _set_threads() -> None:
    """Once: torch does not take kindly to changes in mid-work."""
    threads = _count(THREADS_VARIABLE)
    if threads:
        torch.set_num_threads(threads)
