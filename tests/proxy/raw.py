"""A client that says exactly what it is told to, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

DEADLINE = 10.0


class Answer(msgspec.Struct):
    """``headers`` have lower-case names; ``body`` is what the framing says it is."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection. What does not come within ``DEADLINE`` fails the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)

    def ask(self, line: str, *headers: str, body: bytes = b"") -> None:
        """A whole request; ``Host`` and, for a body, ``Content-Length`` are added."""
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *length, *headers])
        self.send(head.encode() + b"\r\n\r\n" + body)

    async def answer(self, *, bodiless: bool = False) -> Answer:
        async with asyncio.timeout(DEADLINE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (h.partition(":") for h in head[1:-2])
            }
            status = int(head[0].split()[1])
            if bodiless or status in (100, 204):
                return Answer(status, headers, b"")
            return Answer(status, headers, await self._body(headers))

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    async def rest(self) -> bytes:
        """All that still comes; returns when the other side has closed."""
        received = b""
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(65536):
                    received += data
        return received


@contextlib.asynccontextmanager
async def wire(port: int, tls: ssl.SSLContext | None = None, **more: Any) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None, **more
    )
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def until(holds: Callable[[], bool]) -> None:
    """Return once ``holds`` does; fail the test when it does not in time."""
    async with asyncio.timeout(DEADLINE):
        while not holds():
            await asyncio.sleep(0.005)
