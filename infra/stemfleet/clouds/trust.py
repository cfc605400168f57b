"""Whom a client of a worker on a bare port believes: the stack's certificate, and nobody else.

A machine's address is not known when the certificate for it is made, and may change. So every
certificate of every stack is for one name, `WORKER_NAME`, and what tells stacks apart is who has
signed: a stack's authority signs once, and its key is thrown away. A client verifies both, and asks
no authority of the system.
"""

from __future__ import annotations

import socket
import ssl
from functools import cache

WORKER_NAME = "worker.stemfleet.internal"
"""Stands in every stack's certificate; no resolver knows it (``internal`` is reserved for that)."""


class _WorkerContext(ssl.SSLContext):
    """Asks for and verifies `WORKER_NAME`, whatever address is spoken to, also behind a proxy."""

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        del server_hostname
        return super().wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, WORKER_NAME, session
        )

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        del server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, WORKER_NAME, session)


@cache
def trust_only(ca: str) -> ssl.SSLContext:
    """A client's context that believes only what ``ca`` has signed. Shared; not to be changed.

    Args:
        ca: The stack's output ``ca``, as PEM text.

    Raises:
        ValueError: it holds no certificate.
    """
    context = _WorkerContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, TypeError, ValueError) as error:
        raise ValueError(f"no certificate as PEM text ({error})") from error
    return context
