"""The worker's errors: each a stable word for machines and a message that names a next step."""

from __future__ import annotations


class StemserveError(Exception):
    """Base of what a caller or an operator can mend. ``type`` is a stable word, kebab-case."""

    type = "error"


class NotAudioError(StemserveError):
    """The input holds no audio that can be decoded: empty, no audio stream, DRM, cut short."""

    type = "not-audio"


class PresetUnavailableError(StemserveError):
    """The preset exists, and this worker lacks something that it needs."""

    type = "preset-unavailable"


class UnknownNameError(StemserveError):
    """No preset or stem of that name. ``choices`` holds the names there are, the nearest first."""

    type = "unknown-name"

    def __init__(self, message: str, choices: list[str]) -> None:
        super().__init__(message)
        self.choices = choices


class DiskFullError(StemserveError):
    """No room left where the worker keeps its files."""

    type = "disk-full"
