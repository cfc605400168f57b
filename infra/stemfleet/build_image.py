"""`python -m stemfleet.build_image`: builds the worker's image, pushes it, prints what to run.

pulumi-command runs it. What it shall do stands in its environment; whatever the builder says goes
to standard error, and the one line on standard output is the image by the digest it was pushed
under. Who may push is what `docker login` or `buildah login` has written down.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from stemfleet.sources import DOCKERFILE

BUILDERS = ("docker", "buildah")
LIMIT_S = 3 * 3600

TAGGED, ARGUMENTS = "STEMFLEET_IMAGE_TAGGED", "STEMFLEET_IMAGE_ARGUMENTS"
"""Variables: the image's name with its tag; a JSON object of build arguments."""


class BuildError(Exception):
    """The image could not be built or pushed. The builder's own words went to standard error."""


def find_builder() -> str | None:
    """What can build here, the first of `BUILDERS` that is on PATH."""
    return next((name for name in BUILDERS if shutil.which(name)), None)


def build(project: Path, builder: str, tagged: str, arguments: Mapping[str, str]) -> str:
    """Build and push; the image as ``repository@sha256:…``.

    Raises:
        BuildError: a step failed.
    """
    given = [f"--build-arg={name}={value}" for name, value in sorted(arguments.items())]
    what = [f"--tag={tagged}", f"--file={DOCKERFILE}", *given, "."]
    repository = tagged.rpartition(":")[0]
    if builder == "docker":
        _run(project, ["docker", "build", *what])
        _run(project, ["docker", "push", tagged])
        form = "{{range .RepoDigests}}{{println .}}{{end}}"
        pushed = _run(project, ["docker", "image", "inspect", "--format", form, tagged])
        return next(line for line in pushed.split() if line.startswith(f"{repository}@"))
    _run(project, ["buildah", "bud", "--format=docker", "--layers", *what])
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "digest")
        _run(project, ["buildah", "push", f"--digestfile={file}", tagged])
        return f"{repository}@{file.read_text(encoding='utf-8').strip()}"


def _run(project: Path, command: Sequence[str]) -> str:
    """What a command prints, which is shown on standard error as well."""
    done = subprocess.run(
        command,
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    sys.stderr.write(done.stdout)
    if done.returncode != 0:
        raise BuildError(f"`{' '.join(command[:2])}` failed with exit code {done.returncode}")
    return done.stdout


def main() -> None:
    """Build what the environment says, from the project whose program lies in this directory."""
    builder = find_builder()
    if builder is None:
        sys.exit(f"the image was not built: none of {', '.join(BUILDERS)} is on PATH")
    arguments = json.loads(os.environ[ARGUMENTS])
    try:
        image = build(Path.cwd().parent, builder, os.environ[TAGGED], arguments)
    except (BuildError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"the image was not built: {error}")
    print(image)


if __name__ == "__main__":
    main()
