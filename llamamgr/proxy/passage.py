"""``/v1/chat/completions``: the engine speaks OpenAI itself, so bytes pass through; only ``model`` becomes what was asked for."""

from __future__ import annotations

from aiohttp import web

from llamamgr.proxy import replies
from llamamgr.proxy.relay import JSON, GenerationFailedError, Want, with_lease
from llamamgr.proxy.services import Services, services_of
from llamamgr.proxy.upstream import Exchange, open_exchange
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import openai
from llamamgr.wire.engine import error_of
from llamamgr.wire.errors import DialectError


async def chat_completions(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    asked = openai.peek(body)
    services = services_of(request)
    model = await services.resolve(asked.model)
    if "completion" not in model.capabilities:
        raise DialectError(400, f'"{asked.model}" does not support chat')
    passage = Passage(request, asked, body)
    return await passage.run(services, Want(model))


class Passage:
    """One request on its way through."""

    def __init__(self, request: web.Request, asked: openai.Peek, body: bytes) -> None:
        self._request = request
        self._asked = asked
        self._body = body
        self._writer = Writer(request, replies.EVENTS)
        self._whole = b""

    async def run(self, services: Services, want: Want) -> web.StreamResponse:
        try:
            await with_lease(services.children, want, lambda: self._writer.sent, self._attempt)
        except Exception as error:
            if not self._writer.sent or isinstance(error, ConnectionError):
                raise
            told = replies.tell(self._request, error)
            return await self._writer.break_off(openai.stream_error(told.message, told.status))
        return await self._writer.finish() if self._asked.stream else replies.v1(self._whole)

    async def _attempt(self, lease: Lease) -> None:
        path = "/v1/chat/completions"
        async with open_exchange(lease.endpoint, "POST", path, JSON, self._body) as exchange:
            if exchange.status != 200:
                raise GenerationFailedError(error_of(exchange.status, await exchange.read()))
            rewriter = openai.ModelRewriter(lease.model.name.encode(), self._asked.model.encode())
            if self._asked.stream:
                await self._stream(exchange, rewriter)
            else:
                whole = await exchange.read()
                self._whole = rewriter.feed(whole) + rewriter.eof()

    async def _stream(self, exchange: Exchange, rewriter: openai.ModelRewriter) -> None:
        async for data in exchange:
            passed = rewriter.feed(data)
            if passed:
                await self._writer.write(passed)
        rest = rewriter.eof()
        if rest:
            await self._writer.write(rest)
