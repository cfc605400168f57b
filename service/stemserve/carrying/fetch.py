"""Fetches the input of a job from its URL: within limits, and only from where it may.

`check_address` is the one place that says which addresses may be asked. It is asked for each hop
of a redirect, and the connection goes to the very address that was checked.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncGenerator, Sequence

import anyio
import httpx
from pydantic import IPvAnyNetwork

from stemserve.errors import FetchError
from stemserve.settings import Settings

REDIRECTS = 5
TIMEOUT = httpx.Timeout(30.0)
"""For connecting and for each read. The whole download has a limit of its own."""


_UNICAST6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Its last four bytes are an IPv4 address, which a network without IPv4 reaches by it."""

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # of the IETF's protocols
        "192.88.99.0/24",  # relays of 6to4
        "168.63.129.16/32",  # what a cloud's hosts tell their machines
        "2002::/16",  # 6to4: any IPv4 address, a private one too
        "3fff::/20",  # documentation
    )
)
"""What `ipaddress` takes for public, in some or all versions of Python."""


def check_address(address: str, allowed: Sequence[IPvAnyNetwork] = ()) -> None:
    """Raise `FetchError` unless ``address`` is an IP address of the public internet, or allowed."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(ip.packed[-4:])
    if any(ip in network for network in allowed):
        return
    public = ip.is_global and not ip.is_multicast
    public = public and (ip.version == 4 or ip in _UNICAST6)
    if not public or any(ip in network for network in _NOT_PUBLIC):
        raise FetchError(
            "The input_url leads to a private address, where this worker fetches nothing;"
            " upload the file instead: PUT /inputs/{sha256}."
        )


class CheckedTransport(httpx.AsyncBaseTransport):
    """Resolves names itself, and connects only to addresses that `check_address` lets pass."""

    def __init__(self, *, private: bool, allowed: Sequence[IPvAnyNetwork] = ()) -> None:
        self._private = private
        self._allowed = allowed
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
                stream=request.stream,
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
                check_address(address, self._allowed)
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
    transport = CheckedTransport(private=settings.fetch_private, allowed=settings.fetch_allowed)
    client = httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        timeout=TIMEOUT,
        follow_redirects=True,
        max_redirects=REDIRECTS,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_check_redirect]},
    )
    try:
        async with client:
            with anyio.fail_after(settings.fetch_timeout):
                response = await client.send(client.build_request("GET", url), stream=True)
            _check_answer(response)
            chunks = response.aiter_raw()
            while True:
                with anyio.fail_after(deadline - anyio.current_time()):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk
    except TimeoutError:
        raise FetchError(f"The input_url took longer than {settings.fetch_timeout:g} s.") from None
    except httpx.TooManyRedirects:
        raise FetchError(f"The input_url redirects more than {REDIRECTS} times.") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise FetchError(f"The input_url cannot be fetched: {reason}.") from error


async def _check_redirect(response: httpx.Response) -> None:
    """Raise `FetchError` where a redirect gives up what https has promised."""
    if response.has_redirect_location and response.url.scheme == "https":
        target = response.url.join(response.headers["location"])
        if target.scheme == "http":
            raise FetchError(
                "The input_url redirects from https to http; give the address it leads to, if the"
                " way there can be trusted."
            )


def _check_answer(response: httpx.Response) -> None:
    if response.status_code != httpx.codes.OK:
        raise FetchError(f"The input_url answers {response.status_code} {response.reason_phrase}.")
    # What is packed may unpack to a thousand times as much, and sound is packed already.
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    if packed != "identity":
        raise FetchError(
            "The input_url answers with a content encoding, though none was asked for; have the"
            " file served as it is."
        )
