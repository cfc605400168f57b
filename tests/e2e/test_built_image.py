"""A stack that builds its own image, by the real engine; no image is really built."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from stemfleet.build_image import BUILDERS

from tests.clouds.clock import Clock
from tests.clouds.machines import RealWorker
from tests.clouds.vast import VastEmulator
from tests.e2e import command_provider
from tests.e2e.conftest import REPOSITORY, Project
from tests.e2e.test_vast import GROUP, PREFIX
from tests.infra.builders import Builders

pytestmark = pytest.mark.engine

BUILD = {"build": True, "repository": "ghcr.io/you/stemserve", "presets": []}
ON_THE_WAY = {name: value for name, value in GROUP.items() if name != "image"}


@pytest.fixture
def builders(project: Project, tmp_path: Path) -> Builders:
    """First on the engine's PATH, beside a provider of Commands; the project is a checkout."""
    place = tmp_path / "bin"
    place.mkdir()
    provider = place / "pulumi-resource-command"
    program = shlex.join([sys.executable, command_provider.__file__])
    provider.write_text(f'#!/bin/sh\nexec {program} "$@"\n', encoding="utf-8")
    provider.chmod(0o755)
    for name in ("image", "service"):
        shutil.copytree(
            REPOSITORY / name, project.folder / name, ignore=shutil.ignore_patterns("__py*")
        )
    for name in (".dockerignore", "LICENSE", "pyproject.toml", "uv.lock"):
        shutil.copy(REPOSITORY / name, project.folder)
    project.environment["PATH"] = os.pathsep.join([str(place), project.environment["PATH"]])
    return Builders(place)


def configure(project: Project, image: object) -> None:
    """Write the stack's `image`, and a group that names none."""
    project.declare({**ON_THE_WAY, "count": 1})
    file = project.folder / "Pulumi.dev.yaml"
    document = yaml.safe_load(file.read_text())
    document["config"]["stemfleet:image"] = image
    file.write_text(yaml.safe_dump(document))


def test_the_slots_run_what_was_pushed_and_nothing_is_built_twice(
    project: Project, builders: Builders
) -> None:
    configure(project, BUILD)
    builders.install("docker")
    with VastEmulator(clock=Clock(30.0), start=RealWorker) as market:
        project.environment.update(market.environment())
        project.pulumi("preview")
        assert builders.calls() == [], "a preview builds nothing"

        first = builders.push("1")
        project.up()
        assert images(project) == [f"ghcr.io/you/stemserve@{first}"]
        calls = builders.calls()
        assert [call[1] for call in calls] == ["build", "push", "image"]

        builders.push("2")
        (project.folder / "infra/stemfleet/price.py").open("a").write("\n# of the fleet alone\n")
        project.pulumi("preview", "--expect-no-changes")
        project.up()
        assert builders.calls() == calls

        (project.folder / "service/stemserve/names.py").open("a").write("\n# of the worker\n")
        second = builders.push("3")
        project.up()
        assert images(project) == [f"ghcr.io/you/stemserve@{second}"]
        assert market.ledger.most_alive(PREFIX) == 1
        project.destroy()


def images(project: Project) -> list[str]:
    """The images of the slots in the stack's state."""
    resources = json.loads(project.pulumi("stack", "export"))["deployment"]["resources"]
    found = [one["outputs"]["image"] for one in resources if "vast:Instance" in one["type"]]
    assert found
    return found


def test_what_a_build_lacks_is_said_before_anything_is_rented(
    project: Project, builders: Builders, tmp_path: Path
) -> None:
    configure(project, BUILD)
    plain = tmp_path / "without builders"
    plain.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name not in BUILDERS:
            (plain / program.name).symlink_to(program)
    project.environment["PATH"] = os.pathsep.join([str(builders.place), str(plain)])
    said = project.pulumi("preview", fails=True)
    assert "`image.build` needs one of docker, buildah, and none is on PATH" in said
    builders.install("buildah")
    builders.fail()
    with VastEmulator(clock=Clock(30.0), start=RealWorker) as market:
        project.environment.update(market.environment())
        said = project.up(fails=True)
        assert "the image was not built: `buildah bud` failed" in said
        assert market.ledger.contracts(PREFIX) == []
    (project.folder / ".dockerignore").unlink()
    said = project.pulumi("preview", fails=True)
    assert "`image.build` needs a checkout of stemfleet" in said


def test_without_its_extra_it_names_the_extra_and_plain_fleets_do_not_need_it(
    project: Project, builders: Builders, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "pulumi_command.py").write_text("raise ImportError('it is not installed')\n")
    project.environment["PYTHONPATH"] = str(absent)
    assert "Resources:" in project.pulumi("preview"), "the fleet of this machine"
    builders.install("docker")
    configure(project, BUILD)
    assert "pip install 'stemfleet[build]'" in project.pulumi("preview", fails=True)
    configure(project, {**BUILD, "build": False})
    assert "this key is missing: a rented machine runs an image" in project.pulumi(
        "preview", fails=True
    )
