"""What all tests have in common: a home of their own, patience, and an order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine any example may take long.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what drives the engine, on two of four processes: it waits much, and takes long.

    Where it came last, nothing would be left to be done meanwhile.
    """
    engine = [item for item in items if item.get_closest_marker("engine")]
    others = [item for item in items if not item.get_closest_marker("engine")]
    half = len(others) // 2
    items[:] = [*engine[::2], *others[:half], *engine[1::2], *others[half:]]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory; XDG directories and the settings of our own programs lie in it."""
    path = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(path))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in os.environ:
        if name.startswith(("PULUMI_", "STEMCTL_", "STEMSERVE_", "STEMFLEET_")):
            monkeypatch.delenv(name)
    for name in ("VAST_API_KEY", "VASTAI_API_KEY", "VAST_URL", "RUNPOD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    # pulumi-command is installed for its own tests: no engine need fetch its provider.
    monkeypatch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
    # The engine takes the home from the user database, not from HOME.
    state = path / "state"
    state.mkdir()
    monkeypatch.setenv("PULUMI_HOME", str(path / "pulumi"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{state}")
    return path
