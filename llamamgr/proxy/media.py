"""Media that a request gives by its address: fetched here, where it is allowed, and never from a private network.

Every address is looked up once and connected to as looked up, redirects included, so that no name can point elsewhere the
second time. Proxies of the environment are not used: they could reach what this machine may not be asked to.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeAlias
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from llamamgr.wire import images
from llamamgr.wire.errors import DialectError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_BYTES = 20 * 1024 * 1024
MOST_AT_ONCE = 16  # fetches, of all requests together
_LOOKUPS = 4  # names at once
_MOST_ADDRESSES = 32
_MOST_REDIRECTS = 3
_SECONDS = 20
_KINDS = ("image/", "audio/", "video/")


class Fetching:
    """The fetches of all requests together, ``MOST_AT_ONCE`` at a time: each takes a descriptor, and a thread to look its name up.

    ``allowed`` decides about network addresses (default: public ones).
    """

    def __init__(self, allowed: Callable[[Address], bool] | None = None) -> None:
        self._permits = allowed or is_public
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)
        # of their own: a name that is slow to be found must not hold up what else the daemon does in threads
        self._names = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="names")

    async def enclosures(self, addresses: Sequence[str], most: int = MOST_BYTES) -> dict[str, str]:
        """Each address with the ``data:`` address of what is there, ``most`` bytes in all.

        ``DialectError`` 400 for what cannot be had.
        """
        if len(addresses) > _MOST_ADDRESSES:
            raise DialectError(400, f"more than {_MOST_ADDRESSES} addresses of images in one request")
        connector = aiohttp.TCPConnector(resolver=_Resolver(self._permits, self._names))
        timeout, room = aiohttp.ClientTimeout(total=_SECONDS), _Room(most)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
                ) as session,
                asyncio.TaskGroup() as tasks,
            ):
                asked = [tasks.create_task(self._fetch(session, address, room)) for address in addresses]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return dict(zip(addresses, (task.result() for task in asked), strict=True))

    async def _fetch(self, session: aiohttp.ClientSession, address: str, room: _Room) -> str:
        try:
            async with self._turn:
                return await _follow(session, address.strip(), self._permits, room)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise DialectError(
                400, f"{_shown(address)} could not be fetched: {str(error) or type(error).__name__}"
            ) from None


class _Room:
    """What is left of a request's bytes."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def take(self, size: int) -> None:
        """``ValueError`` when there is not as much."""
        self._left -= size
        if self._left < 0:
            raise ValueError(f"the request's images are longer than {self._most} bytes")


def is_public(address: Address) -> bool:
    """True for an address of the open Internet, also behind IPv6's ways to write one of IPv4."""
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return address.is_global and not address.is_multicast and (mapped is None or mapped.is_global)


async def _follow(
    session: aiohttp.ClientSession, address: str, permits: Callable[[Address], bool], room: _Room
) -> str:
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
            return images.data_address(answer.content_type, await _read(answer, room))
    raise ValueError("it redirects too often")


async def _read(answer: aiohttp.ClientResponse, room: _Room) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_any():
        room.take(len(piece))
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

    def __init__(self, permits: Callable[[Address], bool], threads: Executor) -> None:
        self._permits = permits
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look = functools.partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        told = await asyncio.get_running_loop().run_in_executor(self._threads, look)
        found = [_result(host, port, one[0], one[2], str(one[4][0])) for one in told]
        if not found or not all(
            self._permits(ipaddress.ip_address(one["host"].partition("%")[0])) for one in found
        ):
            raise OSError("its address is not public")
        return found

    async def close(self) -> None:
        """Its threads are not its own."""


def _result(name: str, port: int, family: int, protocol: int, address: str) -> ResolveResult:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=name, host=address, port=port, family=family, proto=protocol, flags=flags)
