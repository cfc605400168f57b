"""stemctl's errors: what the user can mend. Each message ends with the next step."""

from __future__ import annotations

from typing import ClassVar


class StemctlError(Exception):
    """Base of what is shown as one line on standard error, never as a traceback.

    ``type`` is a stable word, kebab-case, for those who read the output of ``--json``.
    """

    type: ClassVar[str] = "error"


class EngineError(StemctlError):
    """There is no usable Pulumi engine, or it could not do what was asked."""

    type = "engine"


class StackError(StemctlError):
    """The stack does not exist, has no outputs, or has no endpoints."""

    type = "stack"


class InputError(StemctlError):
    """An input, an output place or an option of a run cannot be used."""

    type = "input"


class WorkerError(StemctlError):
    """A worker did not answer, or refused what it was asked."""

    type = "worker"


class CloudsError(StemctlError):
    """No cloud has answered, or what was asked of one could not be done."""

    type = "cloud"
