"""How long `stemctl --help` takes, against a Python that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROUNDS = 15


def measure() -> dict[str, float]:
    """Medians over several whole processes, in seconds; both taken in turn in each round.

    ``help_s``: `stemctl --help`; ``python_s``: ``python -c pass``; ``extra_s``: the difference.
    """
    commands = {
        "help_s": [str(Path(sys.executable).with_name("stemctl")), "--help"],
        "python_s": [sys.executable, "-c", "pass"],
    }
    for command in commands.values():
        _seconds(command)  # what is read for the first time is not what is measured
    rounds = [{name: _seconds(c) for name, c in commands.items()} for _ in range(ROUNDS)]
    medians = {name: statistics.median(r[name] for r in rounds) for name in commands}
    figures = {**medians, "extra_s": medians["help_s"] - medians["python_s"]}
    return {name: round(seconds, 4) for name, seconds in figures.items()}


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
