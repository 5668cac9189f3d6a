"""``/v1/chat/completions`` of a model with a Go template: the engine cannot render that, so the chat is translated."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import replies
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.performance import perform
from llamamgr.proxy.relay import Want
from llamamgr.proxy.replies import Told
from llamamgr.proxy.services import services_of
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import openai, openai_chat_turns
from llamamgr.wire.neutral import Event
from llamamgr.wire.openai_chat import Passing
from llamamgr.wire.openai_chat_answer import Head, Renderer
from llamamgr.wire.openai_forms import AS_IT_COMES, Reshaping
from llamamgr.wire.script import Script, check_tools


class Scripted:
    """One answer on its way, as a stream of chunks or one completion."""

    def __init__(self, request: web.Request, asked: Passing, script: Script, model: ModelCard) -> None:
        self._request = request
        self._asked = asked
        self._script = script
        self._translated = openai_chat_turns.parse(asked.body)
        check_tools(script, self._translated.chat, model)
        self._writer = Writer(request, replies.EVENTS)
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._now = services_of(request).clock()
        self._renderer: Renderer | None = None

    async def run(self, want: Want) -> web.StreamResponse:
        whole = None if self._asked.stream else self._answer
        return await deliver(
            self._request, want, self._writer, self._attempt, whole=whole, last_words=_last_words
        )

    def _answer(self) -> web.Response:
        assert self._renderer is not None
        shape, answer = self._asked.shape, self._renderer.whole()
        return replies.v1(answer if shape is AS_IT_COMES else Reshaping(shape).whole(answer))

    async def _attempt(self, lease: Lease) -> None:
        renderer = self._renderer = self._new_renderer(lease)
        shape = self._asked.shape
        reshaping = None if shape is AS_IT_COMES else Reshaping(shape)

        async def take(events: Sequence[Event]) -> None:
            data = b"".join([renderer.event(event) for event in events])
            if reshaping is not None:
                data = reshaping.stream(data)
            if data:
                await self._writer.write(data)

        await perform(lease, self._translated.chat, self._script, self._now, take)

    def _new_renderer(self, lease: Lease) -> Renderer:
        card = lease.build.card
        head = Head(self._id, self._now // 10**9, self._asked.model, f"b{card.number}-{card.commit}")
        return Renderer(
            head,
            stream=self._asked.stream,
            include_usage=self._translated.include_usage,
            new_id=lambda: secrets.token_hex(12),
        )


def _last_words(told: Told) -> bytes:
    return openai.stream_error(told.message, told.status)
