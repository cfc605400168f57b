"""The emulated Vast.ai's requests and answers, with the faults that come between them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from tests.clouds.clock import Clock
from tests.clouds.faults import Fault, Faults, Request
from tests.clouds.ledger import Call, Ledger

Json = dict[str, Any]

ROUTES = [
    ("POST", r"/api/v0/bundles/", "search"),
    ("PUT", r"/api/v0/search/asks/", "search"),
    ("PUT", r"/api/v0/asks/(\d+)/", "rent"),
    ("GET", r"/api/v0/instances/(\d+)/", "show"),
    ("GET", r"/api/v1/instances/", "list"),
    ("GET", r"/api/v0/instances/", "old-list"),
    ("PUT", r"/api/v0/instances/(\d+)/", "change"),
    ("PUT", r"/api/v0/instances/bid_price/(\d+)/", "bid"),
    ("PUT", r"/api/v0/instances/(?:reboot|recycle)/(\d+)/", "reboot"),
    ("PUT", r"/api/v0/instances/(?:command|request_logs)/(\d+)/", "command"),
    ("DELETE", r"/api/v0/instances/(\d+)/", "destroy"),
    ("DELETE", r"/api/v0/instances/", "destroy"),
    ("GET", r"/api/v0/users/current/?", "user"),
    ("GET", r"/api/v0/ssh/", "ssh"),
    ("GET", r"/api/v0/gpu_names/unique/", "gpu-names"),
]


class Account(Protocol):
    """What is served."""

    clock: Clock
    faults: Faults
    ledger: Ledger

    def answer(
        self, endpoint: str, ids: tuple[str, ...], request: Request, key: str
    ) -> tuple[int, Json | str]:
        """The status and the body of the answer to a request."""
        ...


def _route(request: Request) -> tuple[str, tuple[str, ...]]:
    for method, path, endpoint in ROUTES:
        if method == request.method and (found := re.fullmatch(path, request.path)):
            return endpoint, found.groups()
    return "?", ()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    account: Account

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        account = self.server.account
        address = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = None
        with suppress(ValueError):
            body = json.loads(content)
        request = Request(self.command, address.path, dict(parse_qsl(address.query)), body)
        key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        endpoint, ids = _route(request)
        fault = account.faults.take(endpoint, request) or Fault()
        status, answer = fault.status, fault.body
        if status is None or fault.lands:
            real_status, real_answer = account.answer(endpoint, ids, request, key)
            if status is None:
                status, answer = real_status, real_answer
        account.ledger.record(Call(account.clock.now(), endpoint, request.path, status))
        time.sleep(fault.delay)
        if fault.reset:
            self.close_connection = True
            return
        with suppress(OSError):  # who asked has gone
            self._send(status, answer, fault.headers)

    def _send(self, status: int, answer: Json | str, headers: Mapping[str, str]) -> None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        kind = "text/plain" if isinstance(answer, str) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())
