"""One question to a child over a connection of its own, with a deadline of its own."""

from __future__ import annotations

import asyncio
import re

import msgspec

from llamamgr.supervise.lease import Endpoint
from llamamgr.wire.errors import ProtocolError
from llamamgr.wire.http1 import Body, End, Head, ResponseParser, request_bytes

_READ = 64 * 1024
_FIGURE = re.compile(r"^llamacpp:(\w+) ([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)$", re.MULTILINE)


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes


async def ask(
    endpoint: Endpoint, path: str, deadline: float, method: str = "GET", body: bytes = b""
) -> Answer | None:
    """The answer, or ``None`` when there was none in ``deadline`` seconds: refused, hung, cut or no HTTP."""
    try:
        async with asyncio.timeout(deadline):
            return await _exchange(endpoint, path, method, body)
    except (OSError, TimeoutError, ProtocolError):
        return None


async def figures(endpoint: Endpoint, deadline: float) -> dict[str, float]:
    """The engine's own counters and gauges (``/metrics``) by their names without prefix; none when it does not tell."""
    answer = await ask(endpoint, "/metrics", deadline)
    if answer is None or answer.status != 200:
        return {}
    text = answer.body.decode("utf-8", "replace")
    return {name: float(value) for name, value in _FIGURE.findall(text)}


async def connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A fresh connection to the child."""
    if endpoint.socket:
        return await asyncio.open_unix_connection(endpoint.socket)
    return await asyncio.open_connection(endpoint.host, endpoint.port)


async def _exchange(endpoint: Endpoint, path: str, method: str, body: bytes) -> Answer:
    reader, writer = await connect(endpoint)
    try:
        headers = [("Authorization", f"Bearer {endpoint.api_key}")] if endpoint.api_key else []
        if body:
            headers.append(("Content-Type", "application/json"))
        writer.write(request_bytes(method, path, headers, body))
        parser, status, parts = ResponseParser(), 0, []
        while True:
            data = await reader.read(_READ)
            for event in parser.feed(data) if data else parser.eof():
                match event:
                    case Head():
                        status = event.status
                    case Body():
                        parts.append(event.data)
                    case End():
                        return Answer(status, b"".join(parts))
    finally:
        writer.transport.abort()
