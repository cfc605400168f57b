"""`stemctl`, and `python -m stemctl`."""

from __future__ import annotations

import io
import sys

OLDEST = (3, 11)


def main() -> None:
    """Run the command that the command line names; ends the process with its exit code."""
    if sys.version_info[:2] < OLDEST:  # a checkout may be run by any Python
        sys.exit(
            "stemctl: Python {}.{} or newer is needed, and this is {}.{}: make the environment "
            "anew with a newer one".format(*OLDEST, *sys.version_info[:2])
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be no text
            stream.reconfigure(errors="backslashreplace")
    from stemctl.app import create_app

    create_app()(prog_name="stemctl")


if __name__ == "__main__":
    main()
