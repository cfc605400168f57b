"""A fleet on two clouds and this machine, by the real engine: no machine of it is ever lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.driving import write_song
from tests.clouds.machines import RealWorker
from tests.clouds.runpod import TERMINATED
from tests.e2e.conftest import Project
from tests.e2e.rented import IMAGE, PREFIX, Clouds, labels_in, rented, state_of, stemctl

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

GPU: dict[str, Any] = {
    "name": "gpu", "cloud": "vast", "count": 1, "image": IMAGE, "gpu": {"maxUsdPerHour": 0.8},
}  # fmt: skip
PODS: dict[str, Any] = {**GPU, "name": "pods", "cloud": "runpod"}
HERE = {"name": "here", "cloud": "local", "count": 1}


def check(project: Project, clouds: Clouds, declared: int, said: str) -> dict[str, str]:
    """State, outputs and the clouds agree on what there is; its instances by slot."""
    state = state_of(project)
    instances = project.instances()
    own = {slot: id_ for slot, id_ in instances.items() if not slot.startswith("here")}
    alive = clouds.alive()
    assert set(own.values()) == set(alive)
    assert set(alive.values()) == {one for one in labels_in(state) if ".here-" not in one}
    assert {alive[id_].removeprefix(PREFIX).split(".")[0] for id_ in own.values()} == set(own)
    assert project.running() == sorted(set(instances.values()) - set(own.values()))
    clouds.check(declared, said + state)
    return instances


def test_a_mixed_fleet_lives_and_ends(project: Project, tmp_path: Path) -> None:
    with rented(project, RealWorker) as clouds:
        project.declare(GPU, PODS, HERE)
        said = project.up()
        one = check(project, clouds, 3, said)
        assert set(one) == {"gpu-0", "pods-0", "here-0"}

        songs = [str(write_song(tmp_path / f"song {n}.wav", 2, 200 + n)) for n in range(4)]
        code, report = stemctl(project, "submit", *songs, "--out", str(tmp_path / "out"))
        assert code == 0, report
        assert len(list((tmp_path / "out").rglob("vocals.*"))) == len(songs)

        project.declare({**GPU, "count": 2}, PODS, HERE)
        said = project.up()
        two = check(project, clouds, 4, said)
        assert {slot: two[slot] for slot in one} == one, "what was there is left alone"

        project.declare({**GPU, "count": 1}, {**PODS, "image": f"{IMAGE}-new"}, HERE)
        said = project.up()
        three = check(project, clouds, 4, said)
        assert three["pods-0"] != two["pods-0"]
        assert (three["gpu-0"], three["here-0"]) == (two["gpu-0"], two["here-0"])

        clouds.vast.vanish(clouds.alive()[three["gpu-0"]])
        clouds.runpod.end(clouds.runpod.find(three["pods-0"]), TERMINATED, "runpod")
        assert {
            row["state"] for row in stemctl(project, "endpoints", "--live")[1]["endpoints"]
        } == {
            "gone",
            "running",
        }
        said = project.up("--refresh")
        four = check(project, clouds, 4, said)
        assert four["here-0"] == three["here-0"]
        assert not set(four.values()) & {three["gpu-0"], three["pods-0"]}
        assert stemctl(project, "sweep") == (
            0,
            {"machines": [], "skipped": {}, "failed": {}, "unread_stacks": {}},
        )

        said = project.destroy()
        assert clouds.alive() == {}
        assert project.running() == []
        clouds.check(4, said)
