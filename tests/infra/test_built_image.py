"""A stack that builds its own image: its configuration, what it is built from, and the building."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stemfleet.build_image import ARGUMENTS, TAGGED
from stemfleet.config import ConfigError, parse_config
from stemfleet.sources import digest

from tests.infra.builders import Builders

ROOT = Path(__file__).parents[2]
RENTED = {"name": "gpu", "cloud": "vast", "count": 2, "gpu": {"maxUsdPerHour": 0.5}}
BUILD = {"build": True, "repository": "ghcr.io/you/stemserve"}


@pytest.fixture
def builders(tmp_path: Path) -> Builders:
    (tmp_path / "bin").mkdir()
    return Builders(tmp_path / "bin")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a builder is given, and the program."""
    place = tmp_path / "check out"
    for name in ("image", "infra", "service"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns(".venv", "__py*"))
    for name in (".dockerignore", "LICENSE", "README.md", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, place)
    return place


def test_groups_need_no_image_where_the_stack_builds_one() -> None:
    config = parse_config({"groups": [RENTED], "image": BUILD})
    assert config.image.presets == ["ensemble"]
    with pytest.raises(ConfigError, match=r"groups\[0\]\.image: this key is missing"):
        parse_config({"groups": [RENTED], "image": {**BUILD, "build": False}})


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"build": True}, "stemfleet:image.repository: this key is missing"),
        ({**BUILD, "repository": "ghcr.io/you/stemserve:1"}, "without a tag"),
        ({**BUILD, "repository": "stemserve"}, "name a registry"),
        ({**BUILD, "repository": "ghcr.io/You/stemserve; rm -rf /"}, "no place to push to"),
        ({**BUILD, "presets": ["a b"]}, "stemfleet:image.presets[0]"),
        ({**BUILD, "licence": "all"}, "stemfleet:image.licence"),
        ({**BUILD, "repositry": "x"}, "did you mean 'repository'"),
    ],
)
def test_what_is_wrong_with_it_is_named(image: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"groups": [RENTED], "image": image})
    assert said in str(caught.value)


def test_the_digest_is_of_what_the_image_is_made_of_alone(checkout: Path) -> None:
    before = digest(checkout, {"PRESETS": "ensemble"})
    assert digest(checkout, {"PRESETS": ""}) != before
    (checkout / "README.md").write_text("other")
    (checkout / "infra/stemfleet/fleet.py").write_text("other")
    (checkout / "service/stemserve/__pycache__").mkdir(exist_ok=True)
    (checkout / "service/stemserve/__pycache__/x.pyc").write_text("other")
    assert digest(checkout, {"PRESETS": "ensemble"}) == before
    seen = {before}
    for name in ("service/stemserve/names.py", "image/Dockerfile", "uv.lock", "pyproject.toml"):
        with (checkout / name).open("a") as file:
            file.write("\n")
        seen.add(digest(checkout, {"PRESETS": "ensemble"}))
    assert len(seen) == 5


def test_the_digest_covers_all_that_the_dockerfile_copies() -> None:
    """What the builder's context lacks cannot be copied; what it has is in the digest."""
    dockerfile = (ROOT / "image/Dockerfile").read_text()
    copied = {
        word
        for line in dockerfile.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    given = {
        line[1:].split("/")[0]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == given


def run_build(checkout: Path, builders: Builders) -> subprocess.CompletedProcess[str]:
    told = {
        "PATH": str(builders.place),
        TAGGED: "ghcr.io/you/stemserve:0a1b2c",
        ARGUMENTS: json.dumps({"PRESETS": "a b", "LICENCE": "any"}),
    }
    return subprocess.run(
        [sys.executable, "-m", "stemfleet.build_image"],
        cwd=checkout / "infra",
        env={**os.environ, **told},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", ["docker", "buildah"])
def test_it_is_built_pushed_and_known_by_its_digest(
    checkout: Path, builders: Builders, name: str
) -> None:
    builders.install(name)
    pushed = builders.push("4")
    done = run_build(checkout, builders)
    assert done.stdout == f"ghcr.io/you/stemserve@{pushed}\n", done.stderr
    assert "words of the builder's own" in done.stderr
    built, sent = builders.calls()[:2]
    assert "--build-arg=PRESETS=a b" in built
    assert "--file=image/Dockerfile" in built
    assert built[-1] == "."
    assert sent[1] == "push"
    assert sent[-1] == "ghcr.io/you/stemserve:0a1b2c"


def test_a_build_that_fails_says_which_step(checkout: Path, builders: Builders) -> None:
    builders.install("docker")
    builders.fail()
    done = run_build(checkout, builders)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no space left on device" in done.stderr
    assert "the image was not built: `docker build` failed with exit code 1" in done.stderr


def test_without_a_builder_it_says_so(checkout: Path, builders: Builders) -> None:
    done = run_build(checkout, builders)
    assert done.returncode == 1
    assert "none of docker, buildah is on PATH" in done.stderr
