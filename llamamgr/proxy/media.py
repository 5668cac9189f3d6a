"""Media that a request gives by its address: fetched here, where it is allowed, and never from a private network.

Every address is looked up once and connected to as looked up, redirects included, so that no name can point elsewhere the
second time. Proxies of the environment are not used: they could reach what this machine may not be asked to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from llamamgr.wire import images
from llamamgr.wire.errors import DialectError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_BYTES = 20 * 1024 * 1024
_MOST_ADDRESSES = 32
_MOST_REDIRECTS = 3
_SECONDS = 20
_KINDS = ("image/", "audio/", "video/")


async def enclosures(
    addresses: Sequence[str], allowed: Callable[[Address], bool] | None = None
) -> dict[str, str]:
    """Each address with the ``data:`` address of what is there.

    ``allowed`` decides about network addresses (default: public ones). ``DialectError`` 400 for what cannot be had.
    """
    if len(addresses) > _MOST_ADDRESSES:
        raise DialectError(400, f"more than {_MOST_ADDRESSES} addresses of images in one request")
    permits = allowed or is_public
    connector = aiohttp.TCPConnector(resolver=_Resolver(permits))
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        found = await asyncio.gather(*(_fetch(session, address, permits) for address in addresses))
    return dict(zip(addresses, found, strict=True))


def is_public(address: Address) -> bool:
    """True for an address of the open Internet, also behind IPv6's ways to write one of IPv4."""
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return address.is_global and not address.is_multicast and (mapped is None or mapped.is_global)


async def _fetch(session: aiohttp.ClientSession, address: str, permits: Callable[[Address], bool]) -> str:
    try:
        return await _follow(session, address.strip(), permits)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise DialectError(
            400, f"{_shown(address)} could not be fetched: {str(error) or type(error).__name__}"
        ) from None


async def _follow(session: aiohttp.ClientSession, address: str, permits: Callable[[Address], bool]) -> str:
    for _ in range(_MOST_REDIRECTS + 1):
        _check(address, permits)
        async with session.get(address, allow_redirects=False) as answer:
            if 300 <= answer.status < 400 and "Location" in answer.headers:
                address = urljoin(address, answer.headers["Location"])
                continue
            if answer.status != 200:
                raise ValueError(f"it answered {answer.status}")
            if not answer.content_type.startswith(_KINDS):
                raise ValueError(f"it is {answer.content_type}, and no image")
            return images.data_address(answer.content_type, await _read(answer))
    raise ValueError("it redirects too often")


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_any():
        data += piece
        if len(data) > MOST_BYTES:
            raise ValueError(f"it is longer than {MOST_BYTES} bytes")
    return bytes(data)


def _check(address: str, permits: Callable[[Address], bool]) -> None:
    """What the resolver never sees: other schemes, and hosts that are written as numbers."""
    parts = urlsplit(address)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ValueError("only http and https are fetched")
    try:
        number = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return
    if not permits(number):
        raise ValueError("its address is not public")


def _shown(address: str) -> str:
    """The address without what may be secret in it."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"[:200]


class _Resolver(AbstractResolver):
    """Names → addresses that are permitted."""

    def __init__(self, permits: Callable[[Address], bool]) -> None:
        self._permits = permits
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not found or not all(
            self._permits(ipaddress.ip_address(one["host"].partition("%")[0])) for one in found
        ):
            raise OSError("its address is not public")
        return found

    async def close(self) -> None:
        await self._inner.close()
