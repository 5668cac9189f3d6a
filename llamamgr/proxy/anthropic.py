"""Anthropic's ``/v1/messages`` and ``/v1/messages/count_tokens``, translated."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import relay, replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.passage import check_chat
from llamamgr.proxy.performance import count, perform
from llamamgr.proxy.relay import GenerationFailedError, Want, want_of
from llamamgr.proxy.replies import Told
from llamamgr.proxy.services import services_of
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import anthropic
from llamamgr.wire.anthropic import MessagesRequest, Renderer
from llamamgr.wire.guidance import guided
from llamamgr.wire.neutral import Event, PromptRead, Sampling
from llamamgr.wire.script import Script, check_tools, script_for
from llamamgr.wire.senses import has_media, perceived


async def messages(request: web.Request) -> web.StreamResponse:
    body = await body_of(request)
    services = services_of(request)
    asked = anthropic.parse_messages(body, fetching=services.config.server.fetch_media)
    model = await services.resolve(asked.model)
    asked = _suited(asked, model)
    if asked.addresses:  # only for who may ask, and what can see
        asked = anthropic.parse_messages(body, fetched=await services.enclosures(asked.addresses))
        asked = _suited(asked, model)
    persona = services.persona_of(model)
    script = script_for(model, persona)
    asked = msgspec.structs.replace(asked, chat=guided(asked.chat, persona))
    check_tools(script, asked.chat, model)
    if script is not None:  # the engine repeats the start of an answer only when it renders the prompt itself
        asked = msgspec.structs.replace(asked, prefill="")
    return await Conversation(request, asked, script).run(want_of(model))


async def count_tokens(request: web.Request) -> web.Response:
    asked = anthropic.parse_count(await body_of(request))
    services = services_of(request)
    model = await services.resolve(asked.model)
    asked = _suited(asked, model)
    persona = services.persona_of(model)
    chat, script = guided(asked.chat, persona), script_for(model, persona)
    check_tools(script, chat, model)

    async def attempt(lease: Lease) -> int:
        return await count(lease, chat, script, services.clock())

    counted = await relay.with_lease(services.children, want_of(model), attempt)
    return replies.v1(anthropic.count_answer(counted), headers=replies.anthropic_headers())


def _suited(asked: MessagesRequest, model: ModelCard) -> MessagesRequest:
    """``asked`` as ``model`` can take it; ``DialectError`` 400 when it cannot."""
    turns = perceived(asked.chat.messages, model.capabilities)
    media = has_media(turns)
    check_chat(model, asked.model, has_media=media, no_media=anthropic.NO_IMAGE)
    chat = msgspec.structs.replace(asked.chat, messages=turns)
    return msgspec.structs.replace(asked, chat=chat, addresses=asked.addresses if media else ())


class Conversation:
    """One answer on its way, as a stream of events or one message."""

    def __init__(self, request: web.Request, asked: MessagesRequest, script: Script | None) -> None:
        self._request = request
        self._script = script
        self._asked = asked
        headers = replies.anthropic_headers() | replies.left_out(asked.left_out)
        self._headers = headers
        self._writer = Writer(request, replies.EVENTS, headers)
        self._id = f"msg_{secrets.token_hex(12)}"
        self._renderer = self._new_renderer()

    async def run(self, want: Want) -> web.StreamResponse:
        whole = None if self._asked.stream else self._answer
        return await deliver(
            self._request,
            want,
            self._writer,
            self._attempt,
            whole=whole,
            last_words=_last_words,
            is_fresh=lambda: self._renderer.is_fresh,
        )

    def _new_renderer(self) -> Renderer:
        asked = self._asked
        return Renderer(
            asked.model,
            self._id,
            stream=asked.stream,
            stop_sequences=asked.stop_sequences,
            tells_cache=asked.tells_cache,
            prefill=asked.prefill,
            shows_thinking=asked.shows_thinking,
            is_silent=asked.chat.sampling.get("max_tokens") == 0,
            limit=_limit(asked.chat.sampling),
        )

    def _answer(self) -> web.Response:
        return replies.v1(self._renderer.whole(), headers=self._headers)

    async def _attempt(self, lease: Lease) -> None:
        if not self._renderer.is_fresh:
            self._renderer = self._new_renderer()
        renderer = self._renderer
        chat, script, now = self._asked.chat, self._script, services_of(self._request).clock()

        async def take(events: Sequence[Event]) -> None:
            data = b""
            if not renderer.started and not isinstance(events[0], PromptRead):
                data = renderer.start(await count(lease, chat, script, now))
            data += b"".join([renderer.event(event) for event in events if renderer.failure is None])
            if renderer.failure is not None:
                raise GenerationFailedError(renderer.failure)
            if data:
                await self._writer.write(data)

        await perform(lease, chat, script, now, take)


def _limit(sampling: Sampling) -> int | None:
    """The limit that an answer cut by its length has met, unless there is one of time too."""
    limit = sampling.get("max_tokens")
    return limit if isinstance(limit, int) and "t_max_predict_ms" not in sampling else None


def _last_words(told: Told) -> bytes:
    return anthropic.stream_error(told.status, told.message)
