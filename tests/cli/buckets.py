"""A store that speaks S3 as far as stemctl asks it, and believes no signature that it has not made.

Signatures are computed here from AWS's description of Signature Version 4, by code of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

KEY, SECRET, REGION = "AKIDEXAMPLE", "the/secret+of+the+store", "eu-central-1"
PAGE = 2
"""Objects in a page of a listing."""


@dataclass
class Store:
    """What is in it, and what was asked of it."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    """By ``bucket/key``."""
    given: list[str] = field(default_factory=list)
    """Objects that were fetched."""
    put: list[str] = field(default_factory=list)
    """Objects that were written, each time."""
    callers: dict[str, str] = field(default_factory=dict)
    """By object: what the one that wrote it last says of itself."""
    losing: set[str] = field(default_factory=set)
    """Objects whose content is cut when they are written."""
    closed: set[str] = field(default_factory=set)
    """Ends of keys that may not be written."""
    held: set[str] = field(default_factory=set)
    """Ends of keys whose writing waits until it is ``let_go``."""
    waiting: list[str] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    refused: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a caller with the keys has in his environment."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _signature(
    method: str, path: str, query: list[tuple[str, str]], headers: Mapping[str, str],
    payload: str, stamp: str, scope: str,
) -> str:  # fmt: skip
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    canonical = "\n".join(
        [
            method,
            quote(path, safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join(value.split())}" for name, value in headers.items()),
            "",
            ";".join(headers),
            payload,
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return _hmac(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}").hex()


def why_not(method: str, target: str, headers: Message) -> str | None:
    """Why a request is refused; None: it is signed as it should be."""
    parts = urlsplit(target)
    query = parse_qsl(parts.query, keep_blank_values=True)
    said = dict(query)
    if signature := said.get("X-Amz-Signature"):
        credential, names = said["X-Amz-Credential"], said["X-Amz-SignedHeaders"]
        stamp, lasts = said["X-Amz-Date"], int(said["X-Amz-Expires"])
        query = [(name, value) for name, value in query if name != "X-Amz-Signature"]
        payload = "UNSIGNED-PAYLOAD"
    elif authorization := headers.get("Authorization"):
        fields = dict(part.strip().split("=", 1) for part in authorization[17:].split(","))
        credential, names = fields["Credential"], fields["SignedHeaders"]
        signature, stamp, lasts = fields["Signature"], headers["X-Amz-Date"], 900
        payload = headers.get("X-Amz-Content-SHA256", "")
    else:
        return "is not signed"
    key, _, scope = credential.partition("/")
    made = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    now = datetime.now(UTC)
    if key != KEY or scope != f"{stamp[:8]}/{REGION}/s3/aws4_request":
        return f"is signed with {credential}"
    if not 0 < lasts <= 7 * 24 * 3600 or not made - timedelta(minutes=5) < now:
        return "has a time that cannot be"
    if now > made + timedelta(seconds=lasts):
        return "is signed too long ago"
    signed = names.split(";")
    if "host" not in signed:
        return "does not sign its host"
    values = {name: headers.get(name, "") for name in signed}
    right = _signature(method, unquote(parts.path), query, values, payload, stamp, scope)
    return None if hmac.compare_digest(signature, right) else "has a wrong signature"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET, for objects and listings; HEAD, PUT and DELETE for objects."""

    protocol_version = "HTTP/1.1"
    store: Store

    def asked(self) -> tuple[str, str] | None:
        """Bucket and key of a request; None: it is refused, and has its answer."""
        reason = why_not(self.command, self.path, self.headers)
        path = urlsplit(self.path).path
        if reason:
            self.store.refused.append(f"{path} {reason}")
            self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return None
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        return bucket, key

    def do_PUT(self) -> None:
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if (found := self.asked()) is None:
            return
        name = "/".join(found)
        if name.endswith(tuple(self.store.held)):
            self.store.waiting.append(name)
            self.store.let_go.wait()
        said = self.headers.get("Content-MD5")
        if name.endswith(tuple(self.store.closed)):
            self.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        elif said and said != base64.b64encode(hashlib.md5(body).digest()).decode():
            self.answer(400, b"<Error><Code>BadDigest</Code></Error>")
        else:
            self.store.objects[name] = body[:-1] if name in self.store.losing else body
            self.store.put.append(name)
            self.store.callers[name] = self.headers.get("User-Agent", "")
            self.answer(200, b"")

    def do_HEAD(self) -> None:
        if (found := self.asked()) is None:
            return
        content = self.store.objects.get("/".join(found))
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("ETag", f'"{hashlib.md5(content or b"").hexdigest()}"')
        self.end_headers()

    def do_DELETE(self) -> None:
        if (found := self.asked()) is None:
            return
        self.store.objects.pop("/".join(found), None)
        self.answer(204, b"")

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if (found := self.asked()) is None:
            return
        bucket, key = found
        if key and f"{bucket}/{key}" in self.store.objects:
            self.store.given.append(f"{bucket}/{key}")
            self.answer(200, self.store.objects[f"{bucket}/{key}"])
        elif key or not any(name.startswith(f"{bucket}/") for name in self.store.objects):
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self.answer(200, self.listing(bucket, dict(parse_qsl(parts.query))).encode())

    def listing(self, bucket: str, asked: dict[str, str]) -> str:
        """A page of ListObjectsV2."""
        begins = f"{bucket}/{asked.get('prefix', '')}"
        names = sorted(name for name in self.store.objects if name.startswith(begins))
        first = int(asked.get("continuation-token", 0))
        page, rest = names[first : first + PAGE], names[first + PAGE :]
        entries = "".join(
            f"<Contents><Key>{escape(quote(name.partition('/')[2], safe='/'))}</Key>"
            f"<Size>{len(self.store.objects[name])}</Size></Contents>"
            for name in page
        )
        more = f"<NextContinuationToken>{first + PAGE}</NextContinuationToken>" if rest else ""
        return (
            f"<ListBucketResult><EncodingType>url</EncodingType>{entries}"
            f"<IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{more}</ListBucketResult>"
        )

    def answer(self, status: int, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def running_store() -> Iterator[Store]:
    """A store on a free loopback port, ended afterwards."""
    store = Store()
    handler = type("Handler", (Handler,), {"store": store})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        store.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield store
        server.shutdown()
        serving.join()
