"""OpenAI's ``/v1/responses``, translated, and what is remembered of its answers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from aiohttp import web

from llamamgr.proxy import replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.media import enclosures
from llamamgr.proxy.passage import check_chat
from llamamgr.proxy.performance import perform
from llamamgr.proxy.relay import GenerationFailedError, Want, want_of
from llamamgr.proxy.replies import Told
from llamamgr.proxy.services import services_of
from llamamgr.proxy.visit import owner
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import responses_request
from llamamgr.wire.errors import DialectError
from llamamgr.wire.guidance import guided
from llamamgr.wire.neutral import ChatRequest, Event, Message
from llamamgr.wire.responses_answer import Renderer
from llamamgr.wire.responses_memory import Remembered
from llamamgr.wire.responses_request import ResponseRequest
from llamamgr.wire.script import Script, script_for


async def create(request: web.Request) -> web.StreamResponse:
    body = await body_of(request)
    services = services_of(request)
    asked = responses_request.parse(body, fetching=services.config.server.fetch_media)
    if asked.addresses:
        asked = responses_request.parse(body, fetched=await enclosures(asked.addresses))
    before: tuple[Message, ...] = ()
    if asked.previous:
        known = services.answers.recall(asked.previous, owner())
        if known is None:
            raise DialectError(
                400,
                f"Previous response with id '{asked.previous}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        before = known.turns
    model = await services.resolve(asked.model)
    has_media = any(turn.parts for turn in (*before, *asked.turns))
    check_chat(model, asked.model, has_media=has_media)
    persona = services.persona_of(model)
    chat = guided(asked.chat(before), persona)
    script = script_for(model, persona, has_media=has_media)
    return await Conversation(request, asked, before, chat, script).run(want_of(model))


async def retrieve(request: web.Request) -> web.Response:
    known = services_of(request).answers.recall(request.match_info["id"], owner())
    if known is None:
        raise _unknown(request)
    return replies.v1(known.response)


async def delete(request: web.Request) -> web.Response:
    id = request.match_info["id"]  # noqa: A001 - the field's name
    answers = services_of(request).answers
    if answers.recall(id, owner()) is None or not answers.forget(id):
        raise _unknown(request)
    return replies.v1(b'{"id":"%s","object":"response","deleted":true}' % id.encode())


def _unknown(request: web.Request) -> DialectError:
    return DialectError(404, f"Response with id '{request.match_info['id']}' not found.")


class Conversation:
    """One answer on its way, as a stream of events or one response."""

    def __init__(
        self,
        request: web.Request,
        asked: ResponseRequest,
        before: tuple[Message, ...],
        chat: ChatRequest,
        script: Script | None,
    ) -> None:
        self._request = request
        self._chat = chat
        self._script = script
        self._asked = asked
        self._before = before
        self._services = services_of(request)
        self._headers = replies.left_out(asked.left_out)
        self._writer = Writer(request, replies.EVENTS, self._headers)
        self._id = f"resp_{_fresh()}"
        self._renderer = self._new_renderer()

    async def run(self, want: Want) -> web.StreamResponse:
        whole = None if self._asked.stream else self._answer
        return await deliver(
            self._request, want, self._writer, self._attempt, whole=whole, last_words=self._last_words
        )

    def _new_renderer(self) -> Renderer:
        return Renderer(self._asked, self._id, new_id=_fresh, now=lambda: self._services.clock() // 10**9)

    def _answer(self) -> web.Response:
        return replies.v1(self._renderer.whole(), headers=self._headers)

    def _last_words(self, told: Told) -> bytes:
        return self._renderer.failed(told.message)

    async def _attempt(self, lease: Lease) -> None:
        renderer = self._renderer = self._new_renderer()

        async def take(events: Sequence[Event]) -> None:
            data = b"".join([renderer.event(event) for event in events if renderer.failure is None])
            if renderer.failure is not None:
                raise GenerationFailedError(renderer.failure)
            if data:
                await self._writer.write(data)

        await perform(lease, self._chat, self._script, self._services.clock(), take)
        if self._asked.store:
            turns = (*self._before, *self._asked.turns, renderer.message)
            self._services.answers.keep(self._id, Remembered(renderer.whole(), turns, owner()))


def _fresh() -> str:
    return secrets.token_hex(12)
