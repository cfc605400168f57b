"""What runs on an emulated machine: a real worker, a stand-in that answers as one, or nothing.

A cloud starts what a machine runs with the environment that the rental carried, and asks it for the
loopback port that the cloud shows as the mapped one.
"""

from __future__ import annotations

import io
import json
import os
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import wave
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

OWN_NAMES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR")
"""What a real worker gets of the test's own environment, beside the container's."""


class Running(Protocol):
    """What runs on one machine. ``port``: on 127.0.0.1."""

    port: int

    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    def stop(self) -> None:
        """End it at once; ending it twice is no error."""
        ...


Start = Callable[[Mapping[str, str], Sequence[str]], Running]
"""Runs a machine: its container's environment, and the arguments behind the image's command."""


class RealWorker:
    """`stemserve serve` in a process of its own, in a directory of its own."""

    def __init__(self, environment: Mapping[str, str], arguments: Sequence[str] = ()) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="machine-", ignore_cleanup_errors=True)
        own = {name: os.environ[name] for name in OWN_NAMES if name in os.environ}
        data = Path(self._folder.name) / "data"
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            self.port = listening.getsockname()[1]
            command = [sys.executable, "-m", "stemserve", "serve"]
            command += ["--socket-fd", str(listening.fileno()), "--data-dir", str(data)]
            self.log = Path(self._folder.name) / "worker.log"
            with self.log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    env=own | dict(environment),
                    cwd=self._folder.name,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(listening.fileno(),),
                    start_new_session=True,
                )

    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """As a container is ended: without a word, with all that it started."""
        if self.alive():
            # The separation process ends with its parent: its standard input does.
            self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class StandIn:
    """Answers a probe as a worker would. Hundreds of them cost one thread."""

    def __init__(self, environment: Mapping[str, str], _arguments: Sequence[str] = ()) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _StandInHandler)
        self._server.daemon_threads = True
        self._server.timeout = 0
        self._server.worker = _Answers(environment.get("STEMSERVE_TOKEN", ""))  # type: ignore[attr-defined]
        if certificate := environment.get("STEMSERVE_TLS_CERT"):
            _wrap(self._server, certificate, environment["STEMSERVE_TLS_KEY"])
        self.port = self._server.server_port
        self._alive = True
        _Listener.the_one().add(self._server)

    def alive(self) -> bool:
        """Whether it answers."""
        return self._alive

    def stop(self) -> None:
        """No longer listen."""
        if self._alive:
            self._alive = False
            _Listener.the_one().remove(self._server)


class Nothing:
    """A machine on which nothing runs: its port is one that nobody listens to."""

    def __init__(self, _environment: Mapping[str, str], _arguments: Sequence[str] = ()) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port: int = taken.getsockname()[1]
        self._alive = True

    def alive(self) -> bool:
        """Until it is stopped."""
        return self._alive

    def stop(self) -> None:
        """There is nothing to end."""
        self._alive = False


class _Answers:
    def __init__(self, token: str) -> None:
        self.token = token
        self.songs: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}


class _StandInHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        pass

    def do_GET(self) -> None:
        worker, path = self._worker(), self.path.partition("?")[0].strip("/").split("/")
        if worker is None:
            return
        if path == ["status"]:
            names = ("center", "htdemucs")
            presets = [{"name": name, "available": True, "lacks": None} for name in names]
            self._answer(200, {"presets": presets})
        elif path[0] == "job" and path[-1] in worker.jobs:
            self._answer(200, worker.jobs[path[-1]])
        elif path[0] == "result" and path[-1] in worker.jobs:
            self._answer(200, worker.songs[worker.jobs[path[-1]]["input_sha256"]])
        else:
            self._answer(*((200, {"ready": True}) if path == ["ready"] else (404, {"detail": "?"})))

    def do_PUT(self) -> None:
        content = self._content()
        if worker := self._worker():
            worker.songs[self.path.rsplit("/", 1)[1]] = content
            self._answer(201, {"size": len(content)})

    def do_POST(self) -> None:
        content, worker = self._content(), self._worker()
        if worker and self.path.startswith("/lease"):
            self._answer(200, {"lease_ends_at": None})
        elif worker:
            body = json.loads(content)
            with wave.open(io.BytesIO(worker.songs[body["input_sha256"]])) as song:
                seconds = song.getnframes() / song.getframerate()
            worker.jobs[body["job_id"]] = {
                **body,
                "status": "completed",
                "elapsed_seconds": seconds / 8,
                "results": [{"name": "vocals.wav"}],
            }
            self._answer(202, {"job_id": body["job_id"], "status": "pending", "message": ""})

    def do_DELETE(self) -> None:
        if worker := self._worker():
            worker.jobs.pop(self.path.rsplit("/", 1)[1], None)
            self._answer(200, {"status": "deleted"})

    def _worker(self) -> _Answers | None:
        worker: _Answers = self.server.worker  # type: ignore[attr-defined]
        if self.headers["Authorization"] == f"Bearer {worker.token}":
            return worker
        self._answer(401, {"detail": "wrong token"})
        return None

    def _content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, status: int, body: dict[str, Any] | bytes) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Listener:
    """One thread that takes the connections of all stand-ins."""

    _instance: _Listener | None = None
    _lock = threading.Lock()

    @classmethod
    def the_one(cls) -> _Listener:
        with cls._lock:
            if cls._instance is None:
                cls._instance = cls()
            return cls._instance

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker, wake = socket.socketpair()
        self._selector.register(wake, selectors.EVENT_READ)
        self._wake = wake
        self._leaving: list[ThreadingHTTPServer] = []
        threading.Thread(target=self._run, name="stand-ins", daemon=True).start()

    def add(self, server: ThreadingHTTPServer) -> None:
        self._selector.register(server.socket, selectors.EVENT_READ, server)
        self._waker.send(b".")

    def remove(self, server: ThreadingHTTPServer) -> None:
        self._selector.unregister(server.socket)
        server.socket.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    self._wake.recv(1024)
                else:
                    try:
                        key.data.handle_request()
                    except (OSError, ValueError):
                        continue  # stopped meanwhile


def _wrap(server: ThreadingHTTPServer, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "both.pem"
        pem.write_text(f"{certificate}\n{key}\n")
        context.load_cert_chain(pem)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
