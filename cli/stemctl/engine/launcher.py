"""The `pulumi` of this virtual environment: a few lines of shell that start the engine.

They make a plain shell with the environment activated enough: no login, no question for the dev
stack's (empty) passphrase, and state that only its owner can read.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from stemctl.engine.find import Engine, launcher

TEXT = """\
#!/bin/sh
# Starts the Pulumi engine of this environment; `stemctl engine install` writes this file.
umask 077
if [ -z "${{PULUMI_CONFIG_PASSPHRASE+set}}${{PULUMI_CONFIG_PASSPHRASE_FILE+set}}" ]; then
    export PULUMI_CONFIG_PASSPHRASE=
fi
export PULUMI_SKIP_UPDATE_CHECK="${{PULUMI_SKIP_UPDATE_CHECK:-true}}"
exec {pulumi} "$@"
"""


def write_launcher(engine: Engine) -> None:
    """Make `pulumi` of this virtual environment start the engine; nothing outside of one."""
    place = launcher()
    if place is not None and engine.pulumi != place:
        write_executable(TEXT.format(pulumi=shlex.quote(str(engine.pulumi))), place)


def write_executable(text: str, place: Path) -> None:
    """Put an executable file at its place, in one step."""
    beside = place.with_name(f".{place.name}-{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(0o755)
    beside.replace(place)
