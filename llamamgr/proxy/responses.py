"""OpenAI's ``/v1/responses``, translated, and what is remembered of its answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.passage import check_chat
from llamamgr.proxy.performance import count, fitting, perform
from llamamgr.proxy.relay import GenerationFailedError, Take, Want, want_of, with_lease
from llamamgr.proxy.replies import Told
from llamamgr.proxy.services import services_of
from llamamgr.proxy.visit import owner
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import responses_request
from llamamgr.wire.errors import DialectError
from llamamgr.wire.guidance import guided
from llamamgr.wire.neutral import ChatRequest, Event
from llamamgr.wire.responses_answer import Renderer
from llamamgr.wire.responses_memory import Remembered
from llamamgr.wire.responses_request import Recall, ResponseRequest
from llamamgr.wire.responses_stored import outputs, page_answer, page_of, stored
from llamamgr.wire.script import Script, check_tools, script_for
from llamamgr.wire.senses import has_media, perceived


class Parse(Protocol):
    """``responses_request.parse``, or its like for a count."""

    def __call__(
        self, body: bytes, *, fetching: bool = ..., fetched: Mapping[str, str] = ..., recall: Recall = ...
    ) -> ResponseRequest: ...


async def create(request: web.Request) -> web.StreamResponse:
    asked, known = await _read(request, responses_request.parse)
    model, chat, script = await _prepared(request, asked, known)
    return await Conversation(request, asked, known, chat, script).run(want_of(model))


async def input_tokens(request: web.Request) -> web.Response:
    """How long the prompt of a request would be, as the engine counts it."""
    asked, known = await _read(request, responses_request.parse_count)
    if not asked.model and known is not None:
        asked = msgspec.structs.replace(asked, model=known.model)
    model, chat, script = await _prepared(request, asked, known)
    services = services_of(request)

    async def attempt(lease: Lease) -> int:
        return await count(lease, chat, script, services.clock())

    counted = await with_lease(services.children, want_of(model), attempt)
    return replies.v1(responses_request.count_answer(counted), headers=replies.left_out(asked.left_out))


async def retrieve(request: web.Request) -> web.Response:
    known = _known(request)
    if request.query.get("stream", "").lower() in ("true", "1"):
        raise DialectError(
            400,
            "This response cannot be streamed because it was not created with background=true.",
            param="stream",
        )
    return replies.v1(known.response)


async def input_items(request: web.Request) -> web.Response:
    """What an answer was made of: its input, and what it went on from."""
    page = page_of(request.query)
    return replies.v1(page_answer(_known(request).items, page))


async def cancel(request: web.Request) -> web.Response:
    """Always refused: an answer is known when it is whole, and background ones, which could be cancelled before, are not served."""
    _known(request)
    raise DialectError(
        400,
        "Cannot cancel a synchronous response: only those created with background=true can be cancelled, and none is here. "
        "Close the connection of one that is under way",
        param="response_id",
    )


async def delete(request: web.Request) -> web.Response:
    _known(request)
    id = request.match_info["id"]  # noqa: A001 - the field's name
    services_of(request).answers.forget(id)
    return replies.v1(b'{"id":"%s","object":"response","deleted":true}' % id.encode())


async def _read(request: web.Request, parse: Parse) -> tuple[ResponseRequest, Remembered | None]:
    """What is asked, media in it enclosed, and the answer that it goes on from."""
    body = await body_of(request)
    services, who = services_of(request), owner()

    def recall(id: str) -> bytes | None:  # noqa: A002 - the field's name
        return services.answers.item(id, who)

    asked = parse(body, fetching=services.config.server.fetch_media, recall=recall)
    if asked.addresses:  # only for who may ask, and what can see
        model = await services.resolve(asked.model)
        turns = perceived(asked.turns, model.capabilities)
        check_chat(model, asked.model, has_media=has_media(turns))
        if has_media(turns):
            asked = parse(body, fetched=await services.enclosures(asked.addresses), recall=recall)
        else:
            asked = msgspec.structs.replace(asked, turns=turns)
    if not asked.previous:
        return asked, None
    known = services.answers.recall(asked.previous, who)
    if known is None:
        raise DialectError(
            400,
            f"Previous response with id '{asked.previous}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return asked, known


async def _prepared(
    request: web.Request, asked: ResponseRequest, known: Remembered | None
) -> tuple[ModelCard, ChatRequest, Script | None]:
    """The model, and the whole conversation as it is to be told to it."""
    services = services_of(request)
    before = known.turns if known is not None else ()
    model = await services.resolve(asked.model)
    chat = asked.chat(before)
    turns = perceived(chat.messages, model.capabilities)
    effort = "reasoning.effort" if asked.think else ""
    check_chat(model, asked.model, has_media=has_media(turns), effort=effort)
    persona = services.persona_of(model)
    script = script_for(model, persona)
    chat = guided(msgspec.structs.replace(chat, messages=turns), persona)
    check_tools(script, chat, model)
    return model, chat, script


def _known(request: web.Request) -> Remembered:
    """The answer that the path names, when it is the visitor's."""
    id = request.match_info["id"]  # noqa: A001 - the field's name
    known = services_of(request).answers.recall(id, owner())
    if known is None:
        raise DialectError(404, f"Response with id '{id}' not found.")
    return known


class Conversation:
    """One answer on its way, as a stream of events or one response."""

    def __init__(
        self,
        request: web.Request,
        asked: ResponseRequest,
        known: Remembered | None,
        chat: ChatRequest,
        script: Script | None,
    ) -> None:
        self._request = request
        self._chat = chat
        self._script = script
        self._asked = asked
        self._known = known
        self._services = services_of(request)
        self._headers = replies.left_out(asked.left_out)
        self._writer = Writer(request, replies.EVENTS, self._headers)
        self._id = f"resp_{_fresh()}"
        self._renderer = self._new_renderer()

    async def run(self, want: Want) -> web.StreamResponse:
        whole = None if self._asked.stream else self._answer
        return await deliver(
            self._request,
            want,
            self._writer,
            self._attempt,
            whole=whole,
            last_words=self._last_words,
            is_fresh=lambda: self._renderer.is_fresh,
        )

    def _new_renderer(self) -> Renderer:
        return Renderer(self._asked, self._id, new_id=_fresh, now=lambda: self._services.clock() // 10**9)

    def _answer(self) -> web.Response:
        return replies.v1(self._renderer.whole(), headers=self._headers)

    def _last_words(self, told: Told) -> bytes:
        return self._renderer.failed(told.message)

    async def _attempt(self, lease: Lease) -> None:
        if not self._renderer.is_fresh:
            self._renderer = self._new_renderer()
        renderer = self._renderer

        async def take(events: Sequence[Event]) -> None:
            data = b"".join([renderer.event(event) for event in events if renderer.failure is None])
            if renderer.failure is not None:
                raise GenerationFailedError(renderer.failure)
            if renderer.is_finished and self._asked.store:
                self._keep(renderer)  # before the client learns of its end, and goes on from it
            if data:
                await self._writer.write(data)

        await self._fitting(lease, take)

    async def _fitting(self, lease: Lease, take: Take) -> None:
        """Generate; a conversation that is too long loses its oldest turns where the client wants that."""

        async def once(chat: ChatRequest) -> None:
            await perform(lease, chat, self._script, self._services.clock(), take)

        await fitting(lease, self._chat, once, lambda: self._asked.truncates and not self._writer.sent)

    def _keep(self, renderer: Renderer) -> None:
        known, asked = self._known, self._asked
        turns, items = (known.turns, known.all_items) if known is not None else ((), ())
        answer = renderer.response(renderer.status)
        fresh = stored(asked.items, _fresh, taken=[item.id for item in items])
        remembered = Remembered(
            renderer.whole(),
            (*turns, *asked.turns, renderer.message),
            owner(),
            asked.model,
            (*items, *fresh),
            outputs(answer),
        )
        self._services.answers.keep(self._id, remembered)


def _fresh() -> str:
    return secrets.token_hex(12)
