"""A docker and a buildah that build nothing: they note how they were called, and push a digest."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """\
import json, os, sys
place, name, words = {place!r}, {name!r}, sys.argv[1:]
with open(place + "/calls", "a") as calls:
    calls.write(json.dumps([name, *words]) + "\\n")
print("words of the builder's own")
if os.path.exists(place + "/fails"):
    sys.exit("no space left on device")
digest = open(place + "/digest").read()
for word in words:
    if word.startswith("--digestfile="):
        with open(word.partition("=")[2], "w") as file:
            file.write(digest)
if "inspect" in words:
    print("elsewhere.example/other@sha256:0\\n" + words[-1].rpartition(":")[0] + "@" + digest)
"""


@dataclass(frozen=True)
class Builders:
    """What was asked of them, and what they push."""

    place: Path

    def install(self, *names: str) -> None:
        """Put those of the names on the directory, which is one for PATH."""
        for name in names:
            path, script = self.place / name, self.place / f"{name}.py"
            script.write_text(_SCRIPT.format(place=str(self.place), name=name), encoding="utf-8")
            # Not by the script's first line: that cannot name a Python in a folder with a space.
            program = shlex.join([sys.executable, "-S", str(script)])
            path.write_text(f'#!/bin/sh\nexec {program} "$@"\n', encoding="utf-8")
            path.chmod(0o755)

    def push(self, digits: str) -> str:
        """Let the next build be of this digest."""
        digest = f"sha256:{digits * 64}"
        (self.place / "digest").write_text(digest)
        return digest

    def fail(self) -> None:
        """Let every call fail from now on."""
        (self.place / "fails").touch()

    def calls(self) -> list[list[str]]:
        """The command lines so far."""
        calls = self.place / "calls"
        lines = calls.read_text(encoding="utf-8").splitlines() if calls.exists() else ()
        return [json.loads(line) for line in lines]
