"""The built image, started as a container would be: as its own user, on a read-only root."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from stemfleet.clouds.base import WorkerSpec
from stemfleet.clouds.container import environment
from stemfleet.clouds.trust import trust_only
from stemfleet.clouds.vast import _terms
from stemfleet.identity import make_certificate

from tests.image.building import Builder
from tests.image.conftest import MEASURED
from tests.image.container import Container
from tests.service.sounds import read_audio, tones, write_audio
from tests.service.worker import eventually, post

pytestmark = [pytest.mark.image, pytest.mark.timeout(3600)]

TOKEN = "the-token"


@pytest.fixture(scope="module")
def root(builder: Builder, image: str) -> Iterator[Path]:
    with builder.mounted(image) as root:
        yield root


@dataclass(frozen=True)
class Started:
    """The worker of a started container."""

    url: str
    token: str
    log: Path
    process: psutil.Process
    """The container's, seen from outside."""

    def client(self) -> httpx.Client:
        """A client with the worker's token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def status_of(self, path: str) -> int:
        """The status of a call, 0 as long as nothing listens."""
        assert self.process.status() != psutil.STATUS_ZOMBIE, self.log.read_text()
        try:
            with self.client() as client:
                return client.get(path).status_code
        except httpx.TransportError:
            return 0


@contextmanager
def worker_in(
    builder: Builder, image: str, root: Path, place: Path, given: Mapping[str, str], *words: str
) -> Iterator[Started]:
    """The worker of a started container, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {"STEMSERVE_TOKEN": TOKEN, **given, "STEMSERVE_PORT": str(port)}
    container = Container(root, place / "data", builder.configuration(image), told)
    log = place / "log"
    with container.started(log, words) as process:
        scheme = "https" if "STEMSERVE_TLS_CERT" in told else "http"
        url = f"{scheme}://127.0.0.1:{port}"
        yield Started(url, told["STEMSERVE_TOKEN"], log, process)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("song") / "song.wav"
    write_audio(path, tones(2 * 44100), 44100, "pcm_s16le")
    return path.read_bytes()


def test_it_separates_a_song(
    builder: Builder,
    image: str,
    root: Path,
    tmp_path: Path,
    song: bytes,
    pytestconfig: pytest.Config,
) -> None:
    began = time.monotonic()
    with worker_in(builder, image, root, tmp_path, {}) as worker:

        def until(path: str) -> float:
            eventually(lambda: worker.status_of(path), lambda status: status == 200, 240)
            return time.monotonic() - began

        healthy, ready = until("/health"), until("/ready")
        lines = pytestconfig.stash.setdefault(MEASURED, [])
        lines.append(f"{healthy:8.1f} s   from its start to /health")
        lines.append(f"{ready:8.1f} s   to /ready, its networks loaded")
        with worker.client() as client:
            assert client.get("/status").json()["default_preset"] == "ensemble"
            job_id = post(client, song, all_stems=True)

            def status() -> str:
                return str(client.get(f"/job/{job_id}").json()["status"])

            ended = eventually(status, lambda it: it in ("completed", "failed"), 900)
            assert ended == "completed", client.get(f"/job/{job_id}/logs").text
            parts = []
            for stem in ("vocals", "drums", "bass", "other"):
                path = tmp_path / f"{stem}.wav"
                answer = client.get(f"/result/{job_id}", params={"file": path.name})
                path.write_bytes(answer.raise_for_status().content)
                parts.append(read_audio(path)[0])
        np.testing.assert_allclose(np.sum(parts, axis=0), tones(2 * 44100), atol=1e-4)
        first = worker.process.children()[0]
        assert first.name() == "tini"
        assert {p.uids().real for p in worker.process.children(recursive=True)} == {1000}
        log = worker.log.read_text()
        assert "no GPU is seen here" in log or "GPU: " in log
        assert "ensemble is loaded" in log

        # What nobody waits for is reaped, and a signal ends all of it.
        inside = ["nsenter", f"--target={first.pid}", "--pid", "sh", "-c", "sleep 0.2 & sleep 0.1"]
        subprocess.run(inside, check=True)
        eventually(lambda: [p.name() for p in first.children()], lambda names: len(names) == 1)
        first.terminate()
        eventually(lambda: psutil.pid_exists(first.pid), lambda there: not there)


def test_nothing_of_it_can_be_written_to(
    builder: Builder, image: str, root: Path, tmp_path: Path
) -> None:
    container = Container(root, tmp_path / "data", builder.configuration(image))
    tried = container.run("sh", "-c", "echo x >/opt/x; echo x >/weights/x; id -u; pwd; touch here")
    assert tried.stdout.split() == ["1000", "/data"]
    assert tried.stderr.count("Read-only file system") == 2
    assert (tmp_path / "data/here").exists()


def test_it_is_what_vast_and_runpod_are_told_to_run(
    builder: Builder, image: str, root: Path, tmp_path: Path
) -> None:
    made = make_certificate()
    spec = WorkerSpec("label", "center", "their-token", image, made, 15, 12)
    asked = _terms(spec)
    of_vast = {name: value for name, value in asked["env"].items() if " " not in name}
    given = {**of_vast, "CONTAINER_ID": "7", "CONTAINER_API_KEY": "its-own-key"}
    for told, words in ((given, asked["args"]), (environment(spec), ())):
        place = tmp_path / f"{len(told)}"
        place.mkdir()
        with worker_in(builder, image, root, place, told, *words) as worker:
            context = trust_only(made.ca)
            with httpx.Client(base_url=worker.url, verify=context, trust_env=False) as client:

                def healthy(client: httpx.Client = client) -> int:
                    try:
                        return client.get("/health").status_code
                    except httpx.TransportError:
                        return 0

                eventually(healthy, lambda status: status == 200)
                assert client.get("/status").status_code == 401
                token = {"Authorization": f"Bearer {told['STEMSERVE_TOKEN']}"}
                status = client.get("/status", headers=token).json()
                assert status["default_preset"] == "center"
                assert status["lease_ends_at"]
            port = worker.url.rpartition(":")[2]
            given_health = {**told, "STEMSERVE_PORT": port}
            again = Container(root, place / "data", builder.configuration(image), given_health)
            test = builder.configuration(image)["Healthcheck"]["Test"]
            assert again.run(*test[1:]).returncode == 0


def test_the_containers_command_separates_a_file(
    builder: Builder, image: str, root: Path, tmp_path: Path, song: bytes
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "song.wav").write_bytes(song)
    given = {"STEMSERVE_PRESET": "htdemucs", "HOME": "/"}
    container = Container(root, data, builder.configuration(image), given, other_user=4242)
    ran = container.run("demucs-separate", "--input", "song.wav", "--output", "out")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert {"vocals.wav", "instrumental.mp3", "progress.txt"} <= {
        path.name for path in (data / "out").iterdir()
    }


def test_without_a_token_it_says_what_to_do(
    builder: Builder, image: str, root: Path, tmp_path: Path
) -> None:
    refused = Container(root, tmp_path / "data", builder.configuration(image)).run(
        "stemserve", "serve"
    )
    assert refused.returncode == 2
    assert "Set STEMSERVE_TOKEN" in refused.stderr


def test_it_says_what_it_is_and_needs(builder: Builder, image: str) -> None:
    configuration = builder.configuration(image)
    assert list(configuration["ExposedPorts"]) == ["8185/tcp"]
    assert configuration["User"] == "stemserve"
    assert configuration["Labels"]["org.opencontainers.image.version"] == "1.2.3"
    assert configuration["Labels"]["org.opencontainers.image.revision"] == "0a1b2c"
    environment = dict(line.split("=", 1) for line in configuration["Env"])
    assert environment["STEMSERVE_PRESET"] == "ensemble"
    assert environment["STEMSERVE_HOST"] == "0.0.0.0"


def test_a_change_of_code_moves_the_last_layer_alone(
    builder: Builder, image: str, rebuilt: str
) -> None:
    before, after = builder.layers(image), builder.layers(rebuilt)
    assert [layer.digest for layer in before[:-1]] == [layer.digest for layer in after[:-1]]
    assert before[-1].digest != after[-1].digest
    assert after[-1].bytes < 10e6


def test_its_weights_need_no_reading(
    builder: Builder, image: str, root: Path, tmp_path: Path
) -> None:
    container = Container(root, tmp_path / "data", builder.configuration(image))
    listed = json.loads(container.run("stemserve", "weights", "list", "--json").stdout)
    assert {row["state"] for row in listed["weights"]} == {"verified"}
    verified = container.run("stemserve", "weights", "verify")
    assert verified.returncode == 0, verified.stderr


def test_weights_without_a_grant_can_be_refused_and_left_out(
    builder: Builder, context: Path, root: Path
) -> None:
    assert (
        sorted(path.suffix for path in (root / "weights").glob("[!.]*"))
        == [".onnx"] * 2 + [".th"] * 7
    )
    with pytest.raises(AssertionError, match="granted a licence"):
        builder.build(context, "localhost/stemserve:granted", LICENCE="granted")
    builder.build(context, "localhost/stemserve:none", PRESETS="", LICENCE="granted")
    with builder.mounted("localhost/stemserve:none") as bare:
        assert not list((bare / "weights").iterdir())
