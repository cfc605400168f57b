"""A registry of images on loopback, as far as a push needs it: uploads in parts, manifests."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass
class Registry:
    """What was pushed: blobs by digest, manifests by repository and tag."""

    address: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)


class _Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    registry: Registry

    def do_GET(self) -> None:
        """`GET /v2/`: there is a registry here."""
        self._say(200)

    def do_HEAD(self) -> None:
        """Whether a blob is here."""
        digest = self.path.rpartition("/")[2]
        content = self.registry.blobs.get(digest)
        self._say(404 if content is None else 200, length=len(content or b""))

    def do_POST(self) -> None:
        """Begin an upload."""
        name = str(len(self.registry.uploads))
        self.registry.uploads[name] = b""
        self._say(202, Location=f"{urlsplit(self.path).path}{name}")

    def do_PATCH(self) -> None:
        """A part of an upload."""
        name = self.path.rpartition("/")[2]
        self.registry.uploads[name] += self._body()
        self._say(202, Location=self.path, Range=f"0-{len(self.registry.uploads[name]) - 1}")

    def do_PUT(self) -> None:
        """The end of an upload, or a manifest."""
        url = urlsplit(self.path)
        if manifest := re.fullmatch(r"/v2/(.+)/manifests/(.+)", url.path):
            content = self._body()
            self.registry.manifests[manifest[1], manifest[2]] = content
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        else:
            content = self.registry.uploads.pop(url.path.rpartition("/")[2]) + self._body()
            digest = parse_qs(url.query)["digest"][0]
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            self.registry.blobs[digest] = content
        self._say(201)

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _say(self, status: int, *, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


@contextmanager
def registry() -> Iterator[Registry]:
    """A registry that is empty."""
    made = Registry("")
    handler = type("Bound", (_Answer,), {"registry": made})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        made.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
