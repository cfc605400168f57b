"""One question to the engine about a project's stacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from stemctl.engine.find import find_engine
from stemctl.errors import StackError

TIMEOUT_S = 60
"""How long the engine may take for an answer."""


def ask_engine(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``pulumi ARGUMENTS`` in the project's folder. It may have failed.

    Raises:
        EngineError: there is no engine.
        StackError: it does not run, or does not answer.
    """
    engine = find_engine()
    try:
        return subprocess.run(
            [str(engine.pulumi), *arguments, "--non-interactive"],
            cwd=project,
            env=engine.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(
            f"the engine did not answer `pulumi {' '.join(arguments)}` within {TIMEOUT_S} s: "
            "is another pulumi at work on it?"
        ) from error
    except OSError as error:
        raise StackError(f"{engine.pulumi} does not run: {error}") from error
