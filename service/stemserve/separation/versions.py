"""What the separation is made of, by version."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("stemfleet", "av", "demucs", "numpy", "onnx", "onnxruntime", "scipy", "soxr", "torch")


def versions() -> dict[str, str]:
    """The version of each package that is installed."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def versions_beside() -> dict[str, str]:
    """What runs them: Python, and the FFmpeg that comes with PyAV."""
    import av

    return {"python": platform.python_version(), "ffmpeg": av.ffmpeg_version_info}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
