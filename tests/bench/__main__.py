"""`python -m tests.bench NAME [--json] …`: measures one thing, and prints what it measured.

With ``--json`` the last line is one JSON object. Progress and remarks go to standard error. What
else a bench can be told, ``NAME -- --help`` says.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil

from tests import bench


def main() -> None:
    """Run the bench that the command line names."""
    names = [m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_")]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=names)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments, rest = parser.parse_known_args()
    bench_module = importlib.import_module(f"tests.bench.{arguments.name}")
    own = argparse.ArgumentParser(prog=f"python -m tests.bench {arguments.name}")
    if hasattr(bench_module, "add_arguments"):
        bench_module.add_arguments(own)
    words = [word for word in rest if word != "--"]
    figures = bench_module.measure(**vars(own.parse_args(words)))
    print(json.dumps(figures, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
