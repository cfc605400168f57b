"""What the networks would run on, told without importing torch, which takes seconds."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

from stemserve.schema import Gpu

CPU = "cpu"
_NVIDIA_SECONDS = 10
_MIB = 2**20


_LOST = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "CUFFT", "cuFFT error")


def is_device_lost(error: Exception) -> bool:
    """Whether a GPU failed, rather than what was computed on it: nothing more can be done with it.

    torch raises `RuntimeError`, of late `torch.AcceleratorError`, with CUDA's words in it. What
    is lack of memory has been dealt with before it comes to this.
    """
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


def device_name() -> str:
    """The first GPU's name and memory where torch could use one, else ``cpu``."""
    found = gpu()
    return CPU if found is None else f"{found.name}, {found.vram_total // _MIB} MiB"


def gpu() -> Gpu | None:
    """The first GPU where torch could use one."""
    query = shutil.which("nvidia-smi")
    if query is None or importlib.util.find_spec("torch") is None:
        return None
    try:
        answer = subprocess.run(
            [query, "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SECONDS,
            check=True,
        )
        name, total, used = answer.stdout.strip().splitlines()[0].rsplit(",", 2)
        return Gpu(name=name.strip(), vram_total=int(total) * _MIB, vram_used=int(used) * _MIB)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def vram_used() -> int | None:
    """Bytes of memory in use on the GPU that torch uses; None when it uses none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info()
    return int(total - free)
