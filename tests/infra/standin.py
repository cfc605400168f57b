"""A worker that goes wrong in the way it is told: as much of the contract as a probe uses.

Run by the adapter in the real worker's place; ``STEMSERVE_FAULT`` says how to go wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

FAULT = os.environ.get("STEMSERVE_FAULT", "")
ONCE = os.environ.get("STEMSERVE_FAULT_ONCE", "")
JOBS: dict[str, dict[str, Any]] = {}
POSTED: list[str] = []
KEPT: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    song = b""

    def do_GET(self) -> None:
        """Whatever is read."""
        path = self.path.partition("?")[0].strip("/").split("/")
        if self.headers["Authorization"] != f"Bearer {os.environ['STEMSERVE_TOKEN']}":
            self.answer(401, {"detail": "wrong token"})
        elif path == ["ready"]:
            ready = FAULT != "never-ready"
            self.answer(200 if ready else 503, {"ready": ready, "reason": "no weights"})
        elif path == ["status"]:
            names = ["center", "other"]
            presets = [{"name": n, "available": n == "center", "lacks": "torch"} for n in names]
            self.answer(200, {"presets": presets, "probes": POSTED, "kept": KEPT})
        elif path[0] == "job":
            self.answer(200, JOBS[path[1]])
        elif path[0] == "result":
            self.answer(200, stem(Handler.song, short=FAULT == "short-result"))

    def do_PUT(self) -> None:
        """An input."""
        Handler.song = self.body()
        self.answer(201, {"sha256": "", "size": 0})

    def do_POST(self) -> None:
        """A job, which is done at once; or a lease, of which only the calls are counted."""
        if self.path.startswith("/lease"):
            KEPT.append(self.path)
            self.answer(200, {"lease_ends_at": None})
            return
        job = json.loads(self.body())["job_id"]
        POSTED.append(job)
        if FAULT == "dies-in-job":
            os._exit(9)
        status = "failed" if FAULT == "fails-job" else "completed"
        JOBS[job] = {
            "job_id": job,
            "status": status,
            "error": "out of memory",
            "elapsed_seconds": 0.5,
            "results": [{"name": "vocals.wav"}],
        }
        self.answer(200, {"job_id": job, "status": "pending", "message": ""})

    def do_DELETE(self) -> None:
        """Forget a job."""
        del JOBS[self.path.rsplit("/", 1)[1]]
        self.answer(200, {"status": "deleted"})

    def body(self) -> bytes:
        """The request's body, by length or in chunks."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, body: dict[str, Any] | bytes) -> None:
        """Send it."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def stem(song: bytes, *, short: bool) -> bytes:
    """The song itself, or less of it."""
    if not short:
        return song
    out = BytesIO()
    with wave.open(BytesIO(song)) as whole, wave.open(out, "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(whole.getnframes() // 2))
    return out.getvalue()


def main() -> None:
    """Serve on the socket that was handed down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-fd", type=int)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--label")
    parser.add_argument("--preset")
    arguments = parser.parse_args()
    if ONCE:
        try:
            Path(ONCE).touch(exist_ok=False)
        except FileExistsError:
            globals()["FAULT"] = ""
    if os.environ.get("STEMSERVE_CHILD"):
        subprocess.Popen(["sleep", "600"])
    if FAULT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if FAULT == "dies-in-boot":
        print("no room for the weights")
        sys.exit(3)
    if FAULT == "hangs":
        time.sleep(600)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=arguments.socket_fd)
    server.server_name, server.server_port = "standin", 0
    server.serve_forever()


if __name__ == "__main__":
    main()
