"""Fetches the input of a job from its URL: within limits, and only from where it may.

`check_address` is the one place that says which addresses may be asked. It is asked for each hop
of a redirect, and the connection goes to the very address that was checked.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncGenerator

import anyio
import httpx

from stemserve.errors import FetchError
from stemserve.settings import Settings

REDIRECTS = 5
TIMEOUT = httpx.Timeout(30.0)
"""For connecting and for each read. The whole download has a limit of its own."""


def check_address(address: str) -> None:
    """Raise `FetchError` unless ``address`` is an IP address of the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global or ip.is_multicast:
        raise FetchError(
            "The input_url leads to a private address, where this worker fetches nothing;"
            " upload the file instead: PUT /inputs/{sha256}."
        )


class CheckedTransport(httpx.AsyncBaseTransport):
    """Resolves names itself, and connects only to addresses that `check_address` lets pass."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the first of its host's addresses that can be connected to."""
        host = request.url.host
        failure: Exception = httpx.ConnectError(f"{host} has no address", request=request)
        for address in await self._addresses(request):
            hop = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(hop)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, request: httpx.Request) -> list[str]:
        try:
            found = await anyio.getaddrinfo(
                request.url.host, request.url.port, type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error), request=request) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._private:
            for address in addresses:
                check_address(address)
        return addresses

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


async def fetch(url: str, settings: Settings) -> AsyncGenerator[bytes]:
    """The bytes behind an http or https URL.

    Raises:
        FetchError: they cannot be had, are not to be had, or take too long.
    """
    deadline = anyio.current_time() + settings.fetch_timeout
    transport = CheckedTransport(private=settings.fetch_private)
    client = httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        timeout=TIMEOUT,
        follow_redirects=True,
        max_redirects=REDIRECTS,
        headers={"Accept-Encoding": "identity"},
    )
    try:
        async with client, client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise FetchError(
                    f"The input_url answers {response.status_code} {response.reason_phrase}."
                )
            async for chunk in response.aiter_bytes():
                if anyio.current_time() > deadline:
                    raise FetchError(
                        f"The input_url took longer than {settings.fetch_timeout:g} s."
                    )
                yield chunk
    except httpx.TooManyRedirects:
        raise FetchError(f"The input_url redirects more than {REDIRECTS} times.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise FetchError(f"The input_url cannot be fetched: {reason}.") from error
