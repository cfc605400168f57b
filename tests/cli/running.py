"""stemctl while it runs: to be waited for, signalled and killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.cli.driving import STEMCTL, TOKEN, Answer, environment


@contextmanager
def submitting(
    arguments: Sequence[object], token: str | None = TOKEN
) -> Iterator[subprocess.Popen[str]]:
    """stemctl in the background; killed at the end if it has not ended by itself."""
    with subprocess.Popen(
        [STEMCTL, *map(str, arguments)],
        env=environment(token),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str], within_s: float = 90) -> Answer:
    """What came of it, once it has ended."""
    out, err = process.communicate(timeout=within_s)
    assert "Traceback" not in err, err
    return Answer(process.returncode, out, err)
