"""`python -m stemserve.separation`: the process that separates, driven over its standard streams.

See ``loop`` for the conversation. Whatever a library prints goes to standard error.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from stemserve.errors import DeviceLostError
from stemserve.separation.confine import confine
from stemserve.task import DEVICE_LOST


def main() -> None:
    """Serve tasks until standard input ends."""
    # A terminal's Ctrl-C reaches the whole group; whether to stop is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(message)s")  # to standard error, and so into the job's log
    logging.getLogger("stemserve").setLevel(logging.INFO)
    with os.fdopen(os.dup(1), "wb") as events:
        os.dup2(2, 1)
        confine()
        from stemserve.separation.loop import run  # it starts threads

        try:
            run(sys.stdin.buffer, events)
        except BrokenPipeError:
            os._exit(1)
        except DeviceLostError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(DEVICE_LOST)  # what cleans up would wait for the GPU


if __name__ == "__main__":
    main()
