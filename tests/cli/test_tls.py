"""Workers on bare ports: their stack's certificate is believed alone, and each miss is told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from stemctl.asked.wishes import Wishes
from stemctl.dispatch import dispatch
from stemctl.errors import StackError
from stemctl.fleet.stack import Fleet, read_fleet
from stemctl.inputs.find import find_inputs
from stemctl.run import Asked, run
from stemctl.worker.client import Worker
from stemfleet.identity import make_certificate
from stemserve.schema import StemFormat

from tests.cli.driving import STEMCTL, TOKEN, Answer, endpoints, environment, tree
from tests.service.worker import STAND_IN, eventually, running_worker

MADE = make_certificate()


@dataclass(frozen=True)
class Port:
    """A worker that serves HTTPS and has a lease; ``at`` is its address without a scheme."""

    at: str
    data_dir: Path


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    """One for the module's tests."""
    with running_worker(
        tmp_path_factory.mktemp("worker") / "data",
        TOKEN,
        separation_command=STAND_IN,
        lease_hours=12,
        tls_cert=MADE.certificate,
        tls_key=MADE.key,
    ) as worker:
        at = worker.url.removeprefix("http://")
        with httpx.Client(verify=False, timeout=60, trust_env=False) as client:
            eventually(lambda: client.get(f"https://{at}/health").is_success)
        yield Port(at, worker.data_dir)


def stemctl(*arguments: object, ca: str | Path | None) -> Answer:
    """Run stemctl with what STEMCTL_CA names."""
    done = subprocess.run(
        [STEMCTL, *map(str, arguments)],
        env=environment() | ({} if ca is None else {"STEMCTL_CA": str(ca)}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """A file with the stack's own authority."""
    file = tmp_path / "ca.pem"
    file.write_text(MADE.ca)
    return file


def test_songs_go_and_stems_come_over_tls(port: Port, ca: Path, tmp_path: Path, out: Path) -> None:
    song = tmp_path / "song.wav"
    song.write_text("copy")
    urls = endpoints(f"https://{port.at}")
    answer = stemctl("submit", song, "--out", out, "--format", "mp3", *urls, "--json", ca=ca)
    assert answer.code == 0, answer.out + answer.err
    assert tree(out) == ["song/instrumental.mp3", "song/vocals.mp3"]


@pytest.mark.parametrize(
    ("scheme", "trusting", "told"),
    [
        ("https", make_certificate().ca, "does not show its stack's certificate"),
        ("https", None, "STEMCTL_CA"),
        ("http", MADE.ca, "is it served by https://?"),
    ],
)
def test_who_is_not_believed_is_told_apart(
    port: Port, tmp_path: Path, scheme: str, trusting: str | None, told: str
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(trusting or "")
    url = f"{scheme}://{port.at}"
    for command, code in (("status", 2), ("doctor", 1)):
        answer = stemctl(command, "--json", "--endpoint", url, ca=file if trusting else None)
        assert answer.code == code
        assert told in answer.out


def test_plain_http_where_https_is_asked_for_is_told(port: Port, ca: Path, tmp_path: Path) -> None:
    with running_worker(tmp_path / "data", TOKEN, separation_command=STAND_IN) as worker:
        worker.wait_ready()
        url = worker.url.replace("http:", "https:")
        answer = stemctl("status", "--json", "--endpoint", url, ca=ca)
    assert answer.code == 2
    assert "is it served by http://?" in answer.out


@pytest.mark.parametrize("content", ["", "no PEM", "é", None])
def test_a_file_without_a_certificate_is_named(
    port: Port, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    answer = stemctl("status", "--endpoint", f"https://{port.at}", ca=file)
    assert answer.code == 2
    assert str(file) in answer.err


def outputs(port: Port, **more: object) -> dict[str, Any]:
    """A stack's, with that worker and one behind a proxy of its cloud."""
    return {
        "endpoints": [
            {"slot": "gpu-0", "url": f"https://{port.at}", "ownCertificate": True},
            {"slot": "pods-0", "url": "https://ab12-8185.proxy.example", "ownCertificate": False},
        ],
        "token": TOKEN,
        **more,
    }


def test_a_stack_says_of_whom_what_is_believed(port: Port) -> None:
    own, public = read_fleet(outputs(port, ca=MADE.ca), "dev").endpoints
    assert own.ca == MADE.ca
    assert public.ca is None
    assert "CERTIFICATE" not in repr(own) + own.model_dump_json()


@pytest.mark.parametrize("more", [{}, {"ca": None}, {"ca": "no PEM"}])
def test_a_stack_that_does_not_say_whom_to_believe_is_not_read(
    port: Port, more: dict[str, object]
) -> None:
    with pytest.raises(StackError, match="pulumi stack output ca"):
        read_fleet(outputs(port, **more), "dev")


def test_a_run_keeps_the_leases_of_its_workers(
    port: Port, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "RENEW_PAUSE_S", 0.2)
    song = tmp_path / "held.wav"
    song.write_text("hold")
    asked, wishes = Asked(out), Wishes(format=StemFormat.MP3, bit_depth=None)
    fleet = read_fleet(outputs(port, ca=MADE.ca), "dev")
    fleet = Fleet(endpoints=fleet.endpoints[:1], token=TOKEN)
    ends: list[datetime] = []

    def renewals() -> int:
        return sum(b - a > timedelta(seconds=0.1) for a, b in pairwise(ends))

    async def submit_and_look() -> None:
        async with (
            Worker(fleet.endpoints[0], TOKEN) as worker,
            anyio.create_task_group() as running,
        ):
            running.start_soon(run, find_inputs([str(song)], out, wishes), fleet, asked)
            with anyio.fail_after(60):
                while renewals() < 4:  # the job's own progress may account for one
                    status = await worker.status()
                    for job in (await worker.jobs()).jobs if status.active_jobs else ():
                        details = (await worker.job(job.job_id)).details
                        if details.percent == 50 and status.lease_ends_at:  # it gets no further
                            ends.append(status.lease_ends_at)
                    await anyio.sleep(0.05)
            for job in (await worker.jobs()).jobs:
                (port.data_dir / "jobs" / job.job_id / "go").touch()

    anyio.run(submit_and_look)
    assert tree(out) == ["held/instrumental.mp3", "held/vocals.mp3"]
