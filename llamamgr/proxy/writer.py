"""A streamed answer to one client.

Its head is sent with its first bytes, so that a failure before them still has a status of its own. A stream that fails later
ends with an error in its dialect and a connection that is closed without the last chunk: no client can take it for complete. An
answer without chunks (HTTP/1.0) is over when its connection is closed in order, so there it is reset.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence

from aiohttp import HttpVersion11, web

from llamamgr.proxy.answer import EVENTS
from llamamgr.proxy.services import services_of

# Between an error at the end of a stream and the cut: clients such as aiohttp's drop what they have not read yet once it is cut
_LAST_WORDS_SECONDS = 0.1
# for what stands between: nginx, for one, holds back events otherwise
_UNBUFFERED = (("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))


class Writer:
    """The stream that answers ``request``, once there is something to write; its status is 200 unless ``head`` says another."""

    def __init__(
        self, request: web.Request, content_type: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._request = request
        self._status = 200
        self._headers = [("Content-Type", content_type), *(headers or {}).items()]
        if content_type == EVENTS:
            self._headers += _UNBUFFERED
        self._response: web.StreamResponse | None = None

    @property
    def sent(self) -> bool:
        """True once a byte of the answer reached the client's connection."""
        return self._response is not None

    def head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """What the head will be; to be called before anything is written."""
        self._status = status
        self._headers = [*headers]

    async def write(self, data: bytes) -> None:
        """Send ``data``, after the head when it is the first; waits while the client is slow."""
        response = self._response or await self._begun()
        await response.write(data)

    async def finish(self) -> web.StreamResponse:
        """The good end."""
        response = await self._begun()
        await response.write_eof()
        return response

    async def break_off(self, last_words: bytes) -> web.StreamResponse:
        """The bad end: ``last_words``, then a closed connection without the end of the body."""
        services_of(self._request).metrics.broken += 1
        response = await self._begun()
        await response.write(last_words)
        await asyncio.sleep(_LAST_WORDS_SECONDS)
        transport = self._request.transport
        if transport is not None:
            if self._request.version < HttpVersion11:
                _reset_when_closed(transport)
            transport.close()  # sends what is buffered first, unlike abort
        return response

    async def _begun(self) -> web.StreamResponse:
        if self._response is None:
            response = web.StreamResponse(status=self._status)
            for name, value in self._headers:
                response.headers.add(name, value)
            await response.prepare(self._request)
            self._response = response
        return self._response


def _reset_when_closed(transport: asyncio.BaseTransport) -> None:
    """The client sees a connection that broke, not one that came to its end."""
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
