"""Which certificates are believed of a worker, and what a user is told when none is shown."""

from __future__ import annotations

import ssl
from functools import cache

import httpx
from stemfleet.clouds.trust import trust_only

from stemctl.fleet.stack import Endpoint


def trusted(endpoint: Endpoint) -> ssl.SSLContext:
    """What connections to the worker are verified by: its stack's authority, or the web's."""
    return _web() if endpoint.ca is None else trust_only(endpoint.ca)


@cache
def _web() -> ssl.SSLContext:
    """Loading these takes longer than many a call, so all workers share them."""
    return httpx.create_ssl_context()


def not_believed(error: BaseException) -> bool:
    """Whether somebody answered, and is not who he should be. Asking again is of no use."""
    return isinstance(_behind(error), ssl.SSLCertVerificationError)


def why_unreachable(endpoint: Endpoint, error: httpx.HTTPError) -> str:
    """Why there was no answer, and what to do."""
    tls = _behind(error)
    if isinstance(tls, ssl.SSLCertVerificationError) and endpoint.ca is not None:
        return (
            f"does not show its stack's certificate ({tls.verify_message}), so nothing was sent: "
            "run `pulumi up`"
        )
    if isinstance(tls, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is not trusted ({tls.verify_message}): for a worker of a "
            "stack, write `pulumi stack output ca` to a file, and name that in STEMCTL_CA"
        )
    if tls is not None:
        return f"does not speak HTTPS ({tls.reason}): is it served by http://?"
    reason = str(error) or type(error).__name__
    broken_off = isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)
    if broken_off and endpoint.url.startswith("http:"):
        reason += "; is it served by https://?"
    return f"does not answer ({reason}): see `stemctl doctor`"


def _behind(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error
