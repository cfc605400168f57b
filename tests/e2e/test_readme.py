"""The README's commands, each run as it stands there, or its parts where it cannot be run here."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.bench import __path__ as bench_folder
from tests.e2e.conftest import REPOSITORY, Project

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

README = REPOSITORY / "README.md"
SONG = REPOSITORY / "tests" / "sample" / "song.flac"
SECONDS = 180
TOKEN = "the-token-of-the-readme"

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)

ELSEWHERE = {
    # Run by CI, and by whoever has run this.
    "make demo": "tests/e2e/test_demo.py",
    "make test": ".ci/run",
    # There is no Docker engine here: the same Dockerfile is built and started without one.
    "docker build -t stemserve -f image/Dockerfile .": "tests/image/test_image.py",
    "docker run --gpus all -p 8185:8185 -e STEMSERVE_TOKEN stemserve": "tests/image/test_image.py",
}
"""Commands that are not run from here, and what runs them."""


def commands(text: str) -> list[str]:
    """The commands of all console blocks, without their remarks."""
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [re.split(r"\s{2,}#", line[2:])[0].strip() for line in lines if line.startswith("$ ")]


class Shell:
    """One shell session after another in the project's folder, as a reader has it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.environment = project.environment | {
            "PULUMI_SKIP_CONFIRMATIONS": "true",
            "STEMCTL_TOKEN": TOKEN,
            "STEMCTL_PROJECT": str(project.folder),
        }
        self.port = 0
        self.activated = ""

    def run(self, command: str) -> str:
        """Run a command to its end; what it has said."""
        done = subprocess.run(
            ["bash", "-c", f"{self.activated}{self._here(command)}"],
            cwd=self.project.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        return done.stdout

    def serve(self, command: str) -> subprocess.Popen[bytes]:
        """Run a command that goes on, until it answers."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        process = subprocess.Popen(
            ["bash", "-c", f"{self.activated}exec env {self._here(command)} --port {self.port}"],
            cwd=self.project.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx.get(
                    f"http://127.0.0.1:{self.port}/ready",
                    headers={"Authorization": f"Bearer {TOKEN}"},
                ).is_success:
                    return process
            except httpx.HTTPError:
                pass
            assert process.poll() is None, f"$ {command} has ended"
            time.sleep(0.1)
        raise AssertionError(f"$ {command} does not answer")

    def _here(self, command: str) -> str:
        """The command with what a reader would put in its place, or what is reached from here."""
        for there, here in (
            ("…", TOKEN),
            ("0.0.0.0", "127.0.0.1"),
            ("http://192.0.2.1:8185", f"http://127.0.0.1:{self.port}"),
            # What is fetched from elsewhere is tried in tests/service/test_fetch.py.
            ("https://example.org/song.flac", "song.flac"),
        ):
            command = command.replace(there, here)
        return command


@pytest.fixture
def shell(project: Project, tmp_path: Path) -> Shell:
    """The project with the songs that the README speaks of, and a home of its own."""
    music = Path(project.environment["HOME"]) / "Music"
    music.mkdir()
    (project.folder / "album").mkdir()
    for place in (music, project.folder / "album", project.folder):
        shutil.copy(SONG, place / "song.flac")
    shutil.copy(SONG, project.folder / "talk.mp3")
    (project.folder / "list.csv").write_text("input,format\nsong.flac,flac\n")
    (tmp_path / "state").mkdir()
    return Shell(project)


def test_every_command_of_the_readme_does_what_it_says(shell: Shell) -> None:
    found = commands(README.read_text())
    assert found, "the README shows no command"
    serving: list[subprocess.Popen[bytes]] = []

    def activate(command: str) -> str:
        assert (shell.project.folder / ".venv" / "bin" / "activate").is_file()
        shell.activated = f"{command} && "
        return ""

    def rented(command: str) -> str:
        """What needs a cloud's key: on this machine, as its remark offers."""
        return shell.run(f"{command} --cloud local --yes --out rented")

    def priceless(command: str) -> str:
        """Without a key there are hours, but no prices; the prices are in tests/cli."""
        return shell.run(f"{command} || [ $? = 1 ]")

    def serve(command: str) -> str:
        serving.append(shell.serve(command))
        return ""

    def destroy(command: str) -> str:
        """And, for what comes after it, the fleet again."""
        said = shell.run(command)
        assert shell.project.running() == []
        return said + shell.run("pulumi up")

    special: dict[str, Callable[[str], str]] = {
        ". .venv/bin/activate": activate,
        "pulumi destroy": destroy,
        "stemctl quote ~/Music": priceless,
        "stemctl run ~/Music --budget 5": rented,
        "STEMSERVE_TOKEN=… stemserve serve --host 0.0.0.0": serve,
        "python -m tests.bench NAME --json": lambda _: "",
    }
    try:
        for command in found:
            if command not in ELSEWHERE:
                special.get(command, shell.run)(command)
    finally:
        for process in serving:
            process.terminate()
            process.wait(SECONDS)
    assert set(special) <= set(found), "what is not in the README any more needs no care here"
    shell.project.destroy()
    folder = shell.project.folder
    for made in ("stems/song/vocals.wav", "stems/talk/drums.flac", "rented/song/vocals.wav"):
        assert (folder / made).is_file(), made


def test_what_the_readme_leaves_to_others_is_there() -> None:
    text = README.read_text()
    found = set(commands(text))
    for command, place in ELSEWHERE.items():
        assert command in found
        assert (REPOSITORY / place).is_file()
        if command.startswith("make "):
            target = command.removeprefix("make ")
            assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)


def test_the_readme_names_every_bench_and_leads_nowhere_else() -> None:
    text = README.read_text()
    line = next(line for line in text.splitlines() if "tests.bench NAME" in line)
    named = set(re.findall(r"\w+", line.partition("#")[2]))
    there = {path.stem for path in Path(bench_folder[0]).glob("*.py") if path.stem[0] != "_"}
    assert named == there
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert "://" in link or (REPOSITORY / link).exists(), link
