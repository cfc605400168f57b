"""What the networks would run on, told without importing torch, which takes seconds."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess

CPU = "cpu"
_NVIDIA_SECONDS = 10


_LOST = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "CUFFT", "cuFFT error")


def is_device_lost(error: Exception) -> bool:
    """Whether a GPU failed, rather than what was computed on it: nothing more can be done with it.

    torch raises `RuntimeError`, of late `torch.AcceleratorError`, with CUDA's words in it. What
    is lack of memory has been dealt with before it comes to this.
    """
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


def device_name() -> str:
    """The first GPU's name and memory where torch could use one, else ``cpu``."""
    query = shutil.which("nvidia-smi")
    if query is None or importlib.util.find_spec("torch") is None:
        return CPU
    try:
        answer = subprocess.run(
            [query, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return CPU
    lines = answer.stdout.strip().splitlines()
    return lines[0].strip() if lines else CPU
