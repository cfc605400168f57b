"""The engine: found on PATH, remembered for the environment, and a clear error where none is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

NO_NETWORK = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"
)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment of its own, in a path with a space, that has all of this one's."""
    folder = tmp_path / "an environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    mine = sysconfig.get_path("purelib")
    # addsitedir, so that the editable packages' own .pth files are read as well
    (packages / "all.pth").write_text(f"import site; site.addsitedir({mine!r})\n")
    return folder


def stemctl(
    environment: Path, *arguments: str, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run stemctl in the environment, with nothing but ``path`` on PATH, and no network."""
    return subprocess.run(
        [environment / "bin" / "python", "-m", "stemctl", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            **NO_NETWORK,
            "PATH": str(path or environment / "nothing"),
            **variables,
        },
    )


def put_engine(folder: Path, version: str = "v3.210.0", *, host: bool = True) -> Path:
    """An engine that tells its version, and otherwise what it was given."""
    folder.mkdir(parents=True)
    script = f"""#!/bin/sh
[ "$1" = version ] && echo {version} && exit
echo "passphrase=[${{PULUMI_CONFIG_PASSPHRASE-none}}]"
for word in "$@"; do echo "word=[$word]"; done
umask
"""
    names = ["pulumi", "pulumi-language-python"] if host else ["pulumi"]
    for name in names:
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder / "pulumi"


def test_pulumi_on_path_is_used_and_remembered(environment: Path, tmp_path: Path) -> None:
    pulumi = put_engine(tmp_path / "their own")
    answer = stemctl(environment, "engine", "install", "--json", path=pulumi.parent)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["pulumi"] == str(pulumi)
    assert json.loads(answer.stdout)["version"] == "3.210.0"
    # Without it on PATH, the environment's own pulumi still finds it.
    answer = stemctl(environment, "engine", "path")
    assert answer.stdout.strip() == str(environment / "bin" / "pulumi")


def test_the_environments_pulumi_needs_no_settings(environment: Path, tmp_path: Path) -> None:
    pulumi = put_engine(tmp_path / "their own")
    stemctl(environment, "engine", "install", path=pulumi.parent)
    command = [str(environment / "bin" / "pulumi"), "up", "a b"]
    plain = {"PATH": "/usr/bin:/bin"}
    said = subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["passphrase=[]", "word=[up]", "word=[a b]", "0077"]
    own = {**plain, "PULUMI_CONFIG_PASSPHRASE_FILE": "mine"}
    said = subprocess.run(command, env=own, capture_output=True, text=True, check=True).stdout
    assert said.startswith("passphrase=[none]")


def test_a_shell_can_take_over_the_environment(environment: Path, tmp_path: Path) -> None:
    pulumi = put_engine(tmp_path / "it's here")
    shown = stemctl(environment, "engine", "env", path=pulumi.parent)
    script = 'eval "$1"; pulumi version'
    answer = subprocess.run(
        ["/bin/sh", "-c", script, "sh", shown.stdout],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.strip() == "v3.210.0", answer.stderr


@pytest.mark.parametrize(
    ("version", "host", "reason"),
    [
        ("v3.199.0", True, "version v3.199.0, older than 3.200"),
        ("v3.210.0", False, "has no pulumi-language-python"),
        ("nonsense", True, "does not tell its version"),
    ],
)
def test_an_engine_that_cannot_serve_is_refused_with_the_reason(
    environment: Path, tmp_path: Path, version: str, host: bool, reason: str
) -> None:
    pulumi = put_engine(tmp_path / "their own", version, host=host)
    answer = stemctl(environment, "engine", "path", path=pulumi.parent)
    assert answer.returncode == 2
    assert reason in answer.stderr
    assert "stemctl engine install" in answer.stderr


def test_without_any_engine_the_error_names_the_three_ways(environment: Path) -> None:
    doctor = stemctl(environment, "doctor")
    assert doctor.returncode == 1
    assert "✗ engine: " in doctor.stdout
    answer = stemctl(environment, "engine", "install")
    assert answer.returncode == 2
    assert "https://www.pulumi.com/docs/install" in answer.stderr
    assert "https://get.pulumi.com" in answer.stderr
    assert "Go is not on PATH" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (environment / "bin" / "pulumi").exists()


def test_a_failed_build_leaves_nothing_behind(
    environment: Path, tmp_path: Path, home: Path
) -> None:
    go = tmp_path / "go"
    go.mkdir()
    (go / "go").write_text(
        '#!/bin/sh\n[ "$1" = env ] && echo go1.30.1 && exit\n'
        '[ "$1" = get ] && echo "proxy says no" >&2 && exit 1\nexit 0\n'
    )
    (go / "go").chmod(0o755)
    answer = stemctl(environment, "engine", "install", path=go)
    assert answer.returncode == 2
    assert "`go get` failed: proxy says no" in answer.stderr
    assert [place.name for place in home.rglob("engine/*")] == ["lock"]
