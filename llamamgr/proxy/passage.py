"""``/v1/chat/completions``: the engine speaks OpenAI itself, so an answer passes, checked and under the name it was asked for.

Only a model with a Go template goes another way: ``scripted``.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.relay import (
    CHAT,
    JSON,
    GenerationFailedError,
    Want,
    mended,
    preferred,
    want_of,
    with_lease,
)
from llamamgr.proxy.replies import Told
from llamamgr.proxy.scripted import Scripted
from llamamgr.proxy.services import Services, services_of
from llamamgr.proxy.upstream import Exchange, ask, open_exchange
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import golang, images, openai, openai_chat
from llamamgr.wire.engine import error_of
from llamamgr.wire.engine_stream import usage_in
from llamamgr.wire.errors import DialectError
from llamamgr.wire.guidance import guided_body
from llamamgr.wire.openai_forms import AS_IT_COMES, Reshaping
from llamamgr.wire.openai_relay import BadAnswerError, Relay, whole_answer
from llamamgr.wire.script import script_for


async def chat_completions(request: web.Request) -> web.StreamResponse:
    services = services_of(request)
    fetching = services.config.server.fetch_media
    asked = openai_chat.prepare(await body_of(request), fetching=fetching)
    model = await services.resolve(asked.model)
    check_chat(model, asked.model, has_media=asked.has_media, effort=asked.effort)
    persona = services.persona_of(model)
    script = script_for(model, persona)
    body = guided_body(asked.body, persona)
    if asked.addresses:
        body = openai_chat.enclosed(body, await services.enclosures(asked.addresses))
    if body is not asked.body:
        asked = msgspec.structs.replace(asked, body=body)
    if script is not None:
        return await Scripted(request, asked, script, model).run(want_of(model))
    if asked.stream:
        return await Passage(request, asked).run(want_of(model))
    answer = await _whole(services, want_of(model), asked)
    return replies.v1(answer if asked.shape is AS_IT_COMES else Reshaping(asked.shape).whole(answer))


def check_chat(
    model: ModelCard, name: str, *, has_media: bool, effort: str = "", no_media: str = images.NO_MEDIA
) -> None:
    """``DialectError`` 400 when ``model``, asked for as ``name``, cannot do what is asked.

    ``effort`` is the field that wants it to think, if one does; ``no_media`` is what to tell of media that it cannot take.
    """
    if effort and "thinking" not in model.capabilities:
        raise DialectError(400, f"{golang.quote(name.encode())} does not support thinking", param=effort)
    if "completion" not in model.capabilities:
        raise DialectError(400, f'"{name}" does not support chat', param="model")
    if has_media and not {"vision", "audio"} & set(model.capabilities):
        raise DialectError(400, no_media, param="messages")


def last_words(told: Told) -> bytes:
    """How a stream of OpenAI's ends that has gone wrong."""
    return openai.stream_error(told.message, told.status)


async def _whole(services: Services, want: Want, asked: openai_chat.Passing) -> bytes:
    """An answer without a stream. Nothing of it is sent before all of it is here, so it may be asked for twice."""

    async def attempt(lease: Lease) -> bytes:
        wanted = await preferred(lease, asked.body)
        status, body = await ask(services.pool, lease.endpoint, "POST", CHAT, JSON, wanted)
        while status != 200:
            wanted = mended(wanted, error_of(status, body))
            status, body = await ask(services.pool, lease.endpoint, "POST", CHAT, JSON, wanted)
        try:
            answer = whole_answer(body, asked.model)
        except BadAnswerError as bad:
            raise GenerationFailedError(bad.failed) from None
        told = usage_in(body)
        lease.tokens.add(told.prompt, told.cached, told.completion)
        return answer

    return await with_lease(services.children, want, attempt)


class Passage:
    """One stream on its way through."""

    def __init__(self, request: web.Request, asked: openai_chat.Passing) -> None:
        self._request = request
        self._asked = asked
        self._writer = Writer(request, replies.EVENTS)

    async def run(self, want: Want) -> web.StreamResponse:
        return await deliver(
            self._request, want, self._writer, self._attempt, whole=None, last_words=last_words
        )

    async def _attempt(self, lease: Lease) -> None:
        relay, shape = Relay(self._asked.model), self._asked.shape
        wanted = await preferred(lease, self._asked.body)
        while True:
            async with open_exchange(lease.endpoint, "POST", CHAT, JSON, wanted) as exchange:
                if exchange.status == 200:
                    await self._stream(exchange, relay, None if shape is AS_IT_COMES else Reshaping(shape))
                    break
                wanted = mended(wanted, error_of(exchange.status, await exchange.read()))
        told = relay.usage
        lease.tokens.add(told.prompt, told.cached, told.completion)

    async def _stream(self, exchange: Exchange, relay: Relay, reshaping: Reshaping | None) -> None:
        while pieces := await exchange.pieces():
            passed = relay.feed(*pieces)
            if reshaping is not None:
                passed = reshaping.stream(passed)
            if passed:
                await self._writer.write(passed)
            if relay.ended or relay.failed:
                break
        relay.eof()
        if relay.failed:
            raise GenerationFailedError(relay.failed)
