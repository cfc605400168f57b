"""The cloud that needs no account: this machine, each worker a process group of its own.

A worker outlives the `pulumi` that started it. Below the root there is one directory per label,
and in it one per instance with the worker's log, its port and its data; all of it goes when the
worker is destroyed.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from stemfleet.clouds.base import (
    CloudError,
    GpuFilter,
    Machine,
    MachineState,
    Offer,
    UnreachableError,
    WorkerSpec,
)
from stemfleet.clouds.processes import MARK, end_all_under, is_worker, processes_under

ROOT_VARIABLE = "STEMFLEET_LOCAL_DIR"
COMMAND = (sys.executable, "-m", "stemserve", "serve")
GPU = "this machine"
REGION = "local"
LOCK_SECONDS = 60.0
APPEAR_SECONDS = 2.0

PASSED_NAMES = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TMPDIR|TORCH_HOME|HF_HOME"
    r"|(LD|DYLD)_LIBRARY_PATH|SSL_CERT_(FILE|DIR)|(LC|XDG|CUDA|NVIDIA|OMP|STEMSERVE)_\w+"
    r"|(HTTP|HTTPS|ALL|NO)_PROXY|(http|https|all|no)_proxy"
)
"""What a worker gets of the environment. Keys of clouds and Pulumi's own variables stay outside."""


class LocalCloud:
    """This machine."""

    name = "local"

    def __init__(self, root: Path | None = None) -> None:
        """Workers live under ``root``; default: STEMFLEET_LOCAL_DIR, else the user's state."""
        given = os.environ.get(ROOT_VARIABLE)
        default = Path(given) if given else platformdirs.user_state_path("stemfleet") / "local"
        self.root = (root or default).expanduser()
        if not self.root.is_absolute():
            raise CloudError(f"{ROOT_VARIABLE} is {given!r}: give it from the root, as /a/path")
        self.root = self.root.resolve()

    def offers(self, want: GpuFilter) -> list[Offer]:
        """This machine, always, and for nothing."""
        return [Offer(id="local", gpu=GPU, usd_per_hour=0.0, region=REGION)]

    def balance(self) -> float | None:
        """Nothing is paid here."""
        return None

    def rent(
        self, want: GpuFilter, spec: WorkerSpec, avoid: frozenset[str] = frozenset()
    ) -> Machine:
        """The worker that runs under the label, else a new one. Its boot is not awaited."""
        _check_installed()
        with self._locked(spec.label) as place:
            for machine in self.machines(spec.label):
                if machine.label == spec.label and machine.state is MachineState.RUNNING:
                    return machine
            self._clear(place)
            return _start(place, spec)

    def machines(self, label_prefix: str) -> list[Machine]:
        """Workers that run, and what is left of those that have died."""
        running = {
            instance
            for instance, processes in processes_under(self.root).items()
            if any(is_worker(process) for process in processes)
        }
        places = [place for place in _directories(self.root) if place.name.startswith(label_prefix)]
        kept = {instance for place in places for instance in _directories(place)}
        found = kept | {path for path in running if path.parent.name.startswith(label_prefix)}
        return [_machine(instance, runs=instance in running) for instance in sorted(found)]

    def destroy(self, label: str) -> None:
        """End the worker with all that it started, then remove its directory."""
        with self._locked(label) as place:
            self._clear(place)
            _remove(place)

    def _clear(self, place: Path) -> None:
        if left := end_all_under(place):
            raise CloudError(
                f"{place.name}: process {', '.join(str(p.pid) for p in left)} does not end; "
                "end it by hand, then try again"
            )
        for instance in place.iterdir():
            _remove(instance)

    @contextmanager
    def _locked(self, label: str) -> Iterator[Path]:
        """The label's directory, held against every other process and thread that asks for it."""
        place = self.root / label
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                place.mkdir(mode=0o700, exist_ok=True)
                handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # removed between the two by who held it
            except OSError as error:
                raise CloudError(
                    f"{place} cannot be made: {error.strerror}; "
                    f"set {ROOT_VARIABLE} to a directory that can be written"
                ) from error
            try:
                while not _try_lock(handle):
                    if time.monotonic() > deadline:
                        raise CloudError(
                            f"{label}: another process has been working on this slot for "
                            f"{LOCK_SECONDS:.0f} s; let it end, then try again"
                        )
                    time.sleep(0.02)
                if _is_still(place, handle):
                    yield place
                    return
            finally:
                os.close(handle)


def _is_still(place: Path, handle: int) -> bool:
    """Whether the lock is that of the directory; who held it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), place.stat())
    except FileNotFoundError:
        return False


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(place: Path) -> bool:
    try:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _directories(path: Path) -> list[Path]:
    """What lies in a directory; nothing where there is none."""
    try:
        return list(path.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UnreachableError(
            f"{path} cannot be read: {error.strerror}; "
            f"it holds this machine's workers, so nothing is known of them until it can be read"
        ) from error


def _check_installed() -> None:
    missing = [m for m in ("stemserve", "fastapi", "uvicorn") if not importlib.util.find_spec(m)]
    if missing:
        raise CloudError(
            f"a worker on this machine needs the package {missing[0]}: "
            "pip install 'stemfleet[service]'"
        )


def _start(place: Path, spec: WorkerSpec) -> Machine:
    instance = place / secrets.token_hex(6)
    data = instance / "data"
    environment = {
        name: value for name, value in os.environ.items() if PASSED_NAMES.fullmatch(name)
    }
    environment |= {"STEMSERVE_TOKEN": spec.token, MARK: str(instance)}
    if spec.idle_minutes is not None:
        environment["STEMSERVE_IDLE_MINUTES"] = f"{spec.idle_minutes:g}"
    if spec.lease_hours is not None:
        environment["STEMSERVE_LEASE_HOURS"] = f"{spec.lease_hours:g}"
    try:
        instance.mkdir(mode=0o700)
        data.mkdir(mode=0o700)
        # Bound here and handed down: the port is known before the start, and no other process can
        # take it in between.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            port = listening.getsockname()[1]
            (instance / "port").write_text(f"{port}\n")
            command = [*COMMAND, "--socket-fd", str(listening.fileno()), "--data-dir", str(data)]
            command += ["--label", spec.label, "--preset", spec.preset]
            with (instance / "worker.log").open("ab") as log:
                process = subprocess.Popen(
                    command,
                    cwd=instance,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(listening.fileno(),),
                    start_new_session=True,
                )
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise CloudError(
            f"{spec.label}: the worker cannot be started in {instance}: {error.strerror}; "
            f"free what it lacks, or set {ROOT_VARIABLE} to another directory"
        ) from error
    # A program that has only just been loaded shows no command line for an instant: not before it
    # does may another look at what runs.
    deadline = time.monotonic() + APPEAR_SECONDS
    while not processes_under(place) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    # Should it die while this process lives, it is not to stay behind as a zombie.
    threading.Thread(target=process.wait, daemon=True).start()
    return _machine(instance, runs=True)


def _machine(instance: Path, *, runs: bool) -> Machine:
    log = instance / "worker.log"
    url: str | None = None
    since: float | None = None
    with suppress(OSError):
        url = f"http://127.0.0.1:{int((instance / 'port').read_text())}"
        since = (instance / "port").stat().st_mtime
    state, detail = MachineState.RUNNING, f"log: {log}"
    if not runs and _is_locked(instance.parent):
        state = MachineState.STARTING
    elif not runs or url is None:
        state, detail = MachineState.FAILED, f"its process has ended{_last_words(log)}; log: {log}"
    return Machine(
        id=instance.name,
        label=instance.parent.name,
        state=state,
        url=url,
        gpu=GPU,
        usd_per_hour=0.0,
        region=REGION,
        detail=detail,
        since=since,
    )


def _last_words(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return f" ({said[-1][:300]})" if said else ""


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CloudError(
            f"{path} cannot be removed: {error.strerror}; remove it by hand, then try again"
        ) from error
