"""The engine from source: a Go tool dependency, built from the Go module proxy.

For networks in which the official installer cannot be reached. `go install pkg@version` refuses
this module, because it has `replace` directives; as the tool of a module of its own it builds.
What the proxy lacks is the Python language host: `language_host.py` takes its place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from stemctl.engine import language_host
from stemctl.engine.launcher import write_executable
from stemctl.errors import EngineError

VERSION = "3.259.0"
OLDEST_GO = (1, 25)
PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
SDK = "github.com/pulumi/pulumi/sdk/v3"
LIMIT_S = 45 * 60

# The engine starts its language host in the program's folder, where `.venv` is (or is a link to)
# the environment that Pulumi.yaml names.
LANGUAGE_HOST = """\
#!/bin/sh
python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
exec "$python" "$(dirname "$0")/language_host.py" "$@"
"""

Tell = Callable[[str], None]


def build(target: Path, tell: Tell) -> None:
    """Build the engine into ``target``; nothing is there before all of it is.

    Raises:
        EngineError: no Go, a Go that is too old, or a step that failed.
    """
    check_go()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        made = Path(folder, "made")
        module = Path(folder, "module")
        (made / "bin").mkdir(parents=True)
        module.mkdir()
        # Caches of its own (3 GB), gone with the folder: they are of no use after the build.
        caches = {"GOMODCACHE": f"{folder}/modules", "GOCACHE": f"{folder}/objects"}
        flags = f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()
        go = Go(module, {**os.environ, **caches, "GOFLAGS": flags, "CGO_ENABLED": "0"}, tell)
        tell("downloading the source")
        go.run("mod", "init", "stemfleet/engine")
        go.run("get", "-tool", f"{PACKAGE}@v{VERSION}")
        go.run("get", f"{SDK}@v{VERSION}")
        go.compile(made / "bin" / "pulumi")
        shim = Path(go.directory_of(SDK), "python", "dist", "pulumi-resource-pulumi-python")
        write_executable(shim.read_text(encoding="utf-8"), made / "bin" / shim.name)
        put_language_host(made)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)


def put_language_host(engine: Path) -> None:
    """Put this release's language host beside a built engine, which may be older than it."""
    write_executable(LANGUAGE_HOST, engine / "bin" / "pulumi-language-python")
    source = Path(language_host.__file__).read_text(encoding="utf-8")
    write_executable(source, engine / "bin" / "language_host.py")


def check_go() -> None:
    """Say whether Go can build the engine.

    Raises:
        EngineError: Go is not there, or too old.
    """
    wanted = ".".join(map(str, OLDEST_GO))
    go = shutil.which("go")
    if go is None:
        raise EngineError(f"Go is not on PATH ({wanted} or newer is needed)")
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    numbers = re.match(r"go(\d+)\.(\d+)", answer.stdout.strip())
    if numbers is None or tuple(map(int, numbers.groups())) < OLDEST_GO:
        raise EngineError(f"Go is {answer.stdout.strip() or 'broken'}, {wanted} is needed")


class Go:
    """The go command in one module's folder."""

    def __init__(self, module: Path, environment: dict[str, str], tell: Tell) -> None:
        self.module = module
        self.environment = environment
        self.tell = tell

    def run(self, *arguments: str) -> str:
        """Run to the end; the standard output.

        Raises:
            EngineError: it failed, or took longer than the whole build may.
        """
        try:
            answer = subprocess.run(
                ["go", *arguments],
                cwd=self.module,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(f"`go {arguments[0]}` took over {LIMIT_S // 60} minutes") from error
        if answer.returncode != 0:
            raise EngineError(f"`go {arguments[0]}` failed: {last_words(answer.stderr)}")
        return answer.stdout

    def directory_of(self, module: str) -> str:
        """Where a module's source lies."""
        directory: str = json.loads(self.run("list", "-m", "-json", module))["Dir"]
        return directory

    def compile(self, binary: Path) -> None:
        """Compile the engine, counting packages.

        Raises:
            EngineError: it does not compile.
        """
        total = len(self.run("list", "-deps", PACKAGE).splitlines())
        stamp = f"-X {SDK}/go/common/version.Version=v{VERSION}"
        command = ["go", "build", "-v", "-trimpath", "-tags", "osusergo,grpcnotrace"]
        command += ["-ldflags", f"-s -w {stamp}", "-o", str(binary), PACKAGE]
        lines: list[str] = []
        with subprocess.Popen(
            command, cwd=self.module, env=self.environment, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr or ():
                lines.append(line)
                self.tell(f"compiling, package {min(len(lines), total)} of {total}")
        if process.returncode != 0:
            raise EngineError(f"`go build` failed: {last_words(''.join(lines))}")


def last_words(text: str) -> str:
    """The end of what a command said, as one line."""
    return " ".join(text.split())[-300:]
