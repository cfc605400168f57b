"""The image, built once for all of its tests, and what was measured on the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stemserve.separation.presets import PRESETS

from tests.image.building import Builder, copy_context, publish
from tests.service.mirror import mirror_of
from tests.service.networks import make_weights

TAG = "localhost/stemserve:test"
STORE = "IMAGE_TEST_STORE"
"""Names a directory that keeps what was built, so that the next run builds only what changed."""

MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """buildah, where it can work."""
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}: apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        pytest.skip("debootstrap and mounts need root: run it by sudo")
    kept = os.environ.get(STORE)
    builder = Builder(Path(kept) if kept else tmp_path_factory.mktemp("store"))
    yield builder
    if not kept:
        builder.remove()


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image is built from: the checkout."""
    place = tmp_path_factory.mktemp("context")
    copy_context(place)
    return place


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory, context: Path) -> Iterator[str]:
    """Gives weights with random content, small, which the checkout's registry then names."""
    made = tmp_path_factory.mktemp("made")
    for preset in ("ensemble", "htdemucs"):
        make_weights(made, PRESETS[preset])
    with mirror_of(publish(made, context)) as mirror:
        yield mirror.url


@pytest.fixture(scope="session")
def image(builder: Builder, context: Path, mirror: str, pytestconfig: pytest.Config) -> str:
    """The name of the image."""
    builder.make_base()
    builder.build(context, TAG, WEIGHTS_MIRROR=mirror, VERSION="1.2.3", REVISION="0a1b2c")
    lines = pytestconfig.stash.setdefault(MEASURED, [])
    layers = builder.layers(TAG)
    lines += [f"{layer.bytes / 1e6:8.1f} MB  {layer.made_by[:70]}" for layer in layers]
    lines.append(f"{sum(layer.bytes for layer in layers) / 1e6:8.1f} MB  in all")
    return TAG


@pytest.fixture(scope="session")
def rebuilt(builder: Builder, image: str, context: Path, mirror: str) -> str:
    """The name of the image after a change of the worker's code."""
    with (context / "service/stemserve/names.py").open("a", encoding="utf-8") as code:
        code.write("\nCHANGED = True\n")
    tag = f"{image}-changed"
    builder.build(context, tag, WEIGHTS_MIRROR=mirror, VERSION="1.2.4", REVISION="0a1b2d")
    return tag


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was measured."""
    if lines := config.stash.get(MEASURED, None):
        terminalreporter.section("the image")
        for line in lines:
            terminalreporter.line(line)
