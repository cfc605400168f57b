"""The emulated RunPod over HTTP: who asks, how often, what goes wrong; and the proxy to the pods.

Every request to the API counts against the account's limits, and a body above 100 KiB is refused.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.clouds.faults import Request
from tests.clouds.ledger import Call
from tests.clouds.runpod import RunpodEmulator
from tests.clouds.runpod_rest import answer
from tests.clouds.runpod_wish import RefusalError

BODY_LIMIT = 102_400
HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}
"""Headers that a proxy does not pass on."""

ROUTES = (
    ("POST", re.compile(r"/graphql()"), "graphql"),
    ("GET", re.compile(r"/v2/pods()"), "list"),
    ("POST", re.compile(r"/v2/pods()"), "create"),
    ("GET", re.compile(r"/v2/pods/([^/]+)"), "get"),
    ("DELETE", re.compile(r"/v2/pods/([^/]+)"), "delete"),
    ("POST", re.compile(r"/v2/pods/([^/]+)/action"), "action"),
    ("GET", re.compile(r"/v2/catalog/gpus()"), "catalog"),
    ("GET", re.compile(r"/v2/catalog/gpus/([^/]+)"), "catalog"),
)
OPERATIONS = re.compile(r"pod[A-Z]\w+|clientBalance|gpuTypes|\bpods\b|\bpod\b")


@contextmanager
def serving(emulator: RunpodEmulator) -> Iterator[str]:
    """Answer for an emulated account; gives its URL."""

    class Bound(_Handler):
        cloud = emulator
        limiter = _Limiter(emulator)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Bound)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Limiter:
    """Fixed windows of the cloud's time, all of them told with every answer."""

    def __init__(self, cloud: RunpodEmulator) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._used: dict[str, tuple[int, int]] = {}

    def count(self) -> tuple[dict[str, str], int | None]:
        """Headers, and after how many seconds to come back, if this request is too many."""
        now = self._cloud.clock.now()
        told, policies, waits = [], [], []
        with self._lock:
            for name, (quota, seconds) in self._cloud.limits.items():
                window = int(now // seconds)
                used = self._used.get(name, (window, 0))
                spent = used[1] if used[0] == window else 0
                left = math.ceil((window + 1) * seconds - now)
                if spent >= quota:
                    waits.append(left)
                else:
                    spent += 1
                self._used[name] = (window, spent)
                told.append(f'"{name}";r={quota - spent};t={left}')
                policies.append(f'"{name}";q={quota};w={seconds}')
        headers = {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(told)}
        return headers, max(waits) if waits else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    cloud: RunpodEmulator
    limiter: _Limiter

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        pass

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        content = self._content()
        try:
            if split.path.startswith("/proxy/"):
                self._forward(split.path, split.query, content)
            else:
                self._serve(split.path, dict(parse_qsl(split.query)), content)
        except OSError:
            self.close_connection = True  # who asked has gone

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET  # noqa: N815

    def _serve(self, path: str, query: dict[str, str], content: bytes) -> None:
        try:
            body = json.loads(content) if content else None
        except ValueError:
            body = None
        request = Request(self.command, path, query, body)
        endpoint, found = _endpoint(request)
        fault = self.cloud.faults.take(endpoint, request)
        headers, wait = self.limiter.count()
        status, said = 0, None
        if fault is None or fault.lands or (fault.status is None and not fault.reset):
            if wait is not None:
                headers["Retry-After"] = str(wait)
            status, said = self._answer(endpoint, found, request, len(content), wait)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.reset:
                self._note(endpoint, 0)
                self.close_connection = True
                return
            if fault.status is not None:
                status, headers = fault.status, {**headers, **fault.headers}
                said = fault.body
        self._note(endpoint, status)
        self._send(status, said, headers)

    def _answer(
        self, endpoint: str, found: str | None, request: Request, size: int, wait: int | None
    ) -> tuple[int, str | dict[str, Any] | None]:
        try:
            if wait is not None:
                raise RefusalError(429, "Rate limit exceeded.")
            if size > BODY_LIMIT:
                raise RefusalError(413, f"Request body exceeds {BODY_LIMIT} bytes.")
            return answer(self.cloud, endpoint, found, request, self._who())
        except RefusalError as refusal:
            problem: dict[str, Any] = {
                "title": http.client.responses[refusal.status],
                "status": refusal.status,
                "detail": refusal.detail,
            }
            if refusal.errors:
                problem["errors"] = refusal.errors
            return refusal.status, problem

    def _who(self) -> str | None:
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            return None
        if key == self.cloud.key:
            return "account"
        return next((pod.id for pod in self.cloud.pods() if pod.key == key), None)

    def _note(self, endpoint: str, status: int) -> None:
        self.cloud.ledger.record(
            Call(self.cloud.clock.now(), endpoint, f"{self.command} {self.path}", status)
        )

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _send(
        self,
        status: int,
        said: bytes | str | dict[str, Any] | None,
        headers: Mapping[str, str],
    ) -> None:
        if isinstance(said, dict):
            problem = "application/problem+json" if status >= 400 else "application/json"
            headers = {"Content-Type": problem, **headers}
            said = json.dumps(said)
        content = said.encode() if isinstance(said, str) else said or b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _forward(self, path: str, query: str, content: bytes) -> None:
        """The proxy: the pod's worker answers, or 502 while there is none."""
        _, _, id_, port, *rest = path.split("/")
        target = "/" + "/".join(rest) + (f"?{query}" if query else "")
        pod = next((one for one in self.cloud.pods() if one.id == id_), None)
        fault = self.cloud.faults.take("proxy", Request(self.command, target))
        if fault is not None and fault.status is not None:
            self._send(fault.status, fault.body, fault.headers)
            return
        if pod is None or pod.running is None or f"{port}/http" not in pod.ports:
            self._send(404 if pod is None else 502, "Bad gateway", {})
            return
        behind = http.client.HTTPConnection("127.0.0.1", pod.running.port, timeout=60)
        try:
            passed = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
            behind.request(self.command, target, content or None, passed)
            came = behind.getresponse()
            kept = {k: v for k, v in came.getheaders() if k.lower() not in HOP}
            status, said = came.status, came.read()
        except (OSError, http.client.HTTPException):
            status, said, kept = 502, b"Bad gateway", {}
        finally:
            behind.close()
        self._send(status, said, kept)


def _endpoint(request: Request) -> tuple[str, str | None]:
    """Its name, for faults and the ledger, and the id in its path: ``graphql:podTerminate``."""
    for method, pattern, name in ROUTES:
        if method == request.method and (match := pattern.fullmatch(request.path)):
            if name == "graphql" and isinstance(request.body, dict):
                operation = OPERATIONS.search(str(request.body.get("query")))
                return f"graphql:{operation.group() if operation else ''}", None
            return name, unquote(match.group(1)) or None
    return "", None
