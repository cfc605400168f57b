"""A mirror of weights that can misbehave: a real HTTP server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Manner = Callable[["Answer"], None]
"""How one request is answered."""


@dataclass
class Mirror:
    """Its files, its address, and what it was asked."""

    url: str
    files: dict[str, bytes]
    manners: list[Manner] = field(default_factory=list)
    """For the next requests, one each; after them it behaves."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Name and Range of each request."""
    ranges: bool = True


class Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def do_GET(self) -> None:
        """Answer, in the manner that is next."""
        wanted = self.headers.get("Range")
        self.mirror.asked.append((self.path[1:], wanted))
        manner = self.mirror.manners.pop(0) if self.mirror.manners else whole
        self.close_connection = True
        manner(self)

    @property
    def content(self) -> bytes:
        """What was asked for, from the beginning."""
        return self.mirror.files.get(self.path[1:], b"")

    def head(self, length: int | None = None, start: int = 0) -> None:
        """The lines before the content; ``length`` is what they declare."""
        self.send_response(206 if start else 200)
        if start:
            size = len(self.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()

    def start(self) -> int:
        """Where the Range begins, if it is heeded."""
        wanted = self.headers.get("Range")
        if not wanted or not self.mirror.ranges:
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def whole(answer: Answer) -> None:
    """As it should be."""
    if not answer.content:
        refuses(404)(answer)
        return
    start = answer.start()
    if start >= len(answer.content):
        refuses(416)(answer)
        return
    answer.head(len(answer.content) - start, start)
    answer.wfile.write(answer.content[start:])


def breaks_after(count: int) -> Manner:
    """Declare all, send so many bytes, and hang up."""

    def manner(answer: Answer) -> None:
        start = answer.start()
        answer.head(len(answer.content) - start, start)
        answer.wfile.write(answer.content[start : start + count])

    return manner


def declares(length: int) -> Manner:
    """Declare another length than that of the content."""

    def manner(answer: Answer) -> None:
        answer.head(length)
        answer.wfile.write(answer.content)

    return manner


def gives(content: bytes) -> Manner:
    """Give other bytes, and declare no length."""

    def manner(answer: Answer) -> None:
        answer.head()
        answer.wfile.write(content)

    return manner


def refuses(status: int) -> Manner:
    """Answer with an error."""

    def manner(answer: Answer) -> None:
        answer.send_response(status)
        answer.send_header("Content-Length", "0")
        answer.send_header("Connection", "close")
        answer.end_headers()

    return manner


@contextmanager
def mirror_of(files: dict[str, bytes]) -> Iterator[Mirror]:
    """A mirror that serves these files."""
    mirror = Mirror("", files)
    handler = type("Bound", (Answer,), {"mirror": mirror})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        mirror.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield mirror
        finally:
            server.shutdown()
            thread.join()
