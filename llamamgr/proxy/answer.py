"""A whole answer. To a usual request its head is written in one piece with its body.

aiohttp collects headers in a multidict, completes them in turn and tells its signals before it writes them, which costs as much as
all else that is done for a small answer. Here what never changes is written down, and what changes is put between.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import ClientConnectionResetError, HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from llamamgr.proxy.moments import http_date
from llamamgr.proxy.visit import visiting

SERVER = "llamamgr"
V1_JSON = "application/json"
EVENTS = "text/event-stream"
_LARGE = 64 * 1024  # bytes from which on one piece is one copy too many


class Answer(web.Response):
    """``body`` of ``content_type``; ``headers`` are what else there is to tell."""

    def __init__(
        self, body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        # not what web.Response does: it takes as long as the scheduling of a request, for what a usual answer never uses
        self._status = status
        self._whole = body
        self._type = content_type
        self._more = headers
        self._is_sent = False
        self._is_complete = False

    @property
    def headers(self) -> CIMultiDict[str]:
        self._complete()
        return super().headers

    @property
    def prepared(self) -> bool:
        return self._is_sent or super().prepared

    @property
    def keep_alive(self) -> bool | None:
        return self._is_sent or super().keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        visit, writer, transport = visiting(), request.writer, request.transport
        if visit is None or not self._is_usual(request):
            self._complete()
            return await super().prepare(request)
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client left before it was answered")
        taken = visit.note_first_byte()
        # what OpenAI's clients log; nobody else's answers are plain JSON, and without headers of their own
        timing = f"openai-processing-ms: {taken}\r\n" if self._type == V1_JSON else ""
        head = (
            f"HTTP/1.1 200 OK\r\nServer: {SERVER}\r\nDate: {http_date()}\r\nX-Request-Id: {visit.id}\r\n"
            f"Content-Type: {self._type}\r\nContent-Length: {len(self._whole)}\r\n{timing}\r\n"
        )
        data = head.encode() + self._whole
        transport.write(data)
        writer.output_size += len(data)
        self._is_sent = True
        await writer.drain()  # no answer to the next request while this one is not taken
        return writer

    def _complete(self) -> None:
        """Become what aiohttp knows of a response, for all but the usual."""
        if not self._is_complete:
            self._is_complete = True
            headers = {"Content-Type": self._type, **(self._more or {})}
            super().__init__(status=self._status, body=self._whole, headers=headers)

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._is_sent:
            await super().write_eof(data)

    def _is_usual(self, request: web.BaseRequest) -> bool:
        """Nothing has to be said but what always is, to a client that will ask again."""
        return (
            self._status == 200
            and not self._more
            and not self._is_complete  # or it may have got headers since
            and len(self._whole) < _LARGE
            and super().keep_alive is not False
            and request.keep_alive
            and request.version == HttpVersion11
            and request.method != "HEAD"
            and "Origin" not in request.headers
        )
