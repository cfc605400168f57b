"""`stemctl`, and `python -m stemctl`."""

from __future__ import annotations

from stemctl.app import create_app


def main() -> None:
    """Run the command that the command line names; ends the process with its exit code."""
    create_app()(prog_name="stemctl")


if __name__ == "__main__":
    main()
