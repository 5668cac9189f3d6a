"""Ollama's generation: ``/api/generate`` and ``/api/chat``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import relay, replies
from llamamgr.proxy.moments import Stamps
from llamamgr.proxy.relay import Want
from llamamgr.proxy.services import Services, services_of
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease, LoadOptions
from llamamgr.wire import engine, ollama
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import Event, Finished
from llamamgr.wire.ollama import ChatBody, GenerateRequest

_UNCLOSED_ACTION = re.compile(r"\{\{(?:(?!\}\}).)*\Z", re.DOTALL)


async def generate(request: web.Request) -> web.StreamResponse:
    asked = ollama.parse_generate(await request.read())
    return await _answer(request, "generate", asked)


async def chat(request: web.Request) -> web.StreamResponse:
    asked = ollama.parse_chat(await request.read())
    return await _answer(request, "chat", asked)


async def _answer(
    request: web.Request, kind: ollama.Kind, asked: GenerateRequest | ChatBody
) -> web.StreamResponse:
    services = services_of(request)
    since = services.clock()
    model = await services.resolve(asked.model)
    if asked.is_unload:
        await services.children.unload(model)
    else:
        ollama.check_capabilities(asked, model.capabilities)
        if isinstance(asked, GenerateRequest):
            refuse_what_is_not_served(asked)
        want = Want(model, LoadOptions(**msgspec.structs.asdict(asked.load)), asked.keep_alive)
        if not asked.is_load:
            return await Conversation(request, kind, asked, since).run(services, want)
        async with services.children.acquire(model, want.options, keep_alive=want.keep_alive):
            pass
    created = Stamps(services.clock)()
    return replies.native(ollama.load_answer(kind, asked.model, created, unload=asked.is_unload))


def refuse_what_is_not_served(asked: GenerateRequest) -> None:
    """``DialectError`` for a Go template or a suffix, neither of which may be dropped in silence."""
    if _UNCLOSED_ACTION.search(asked.template):
        line = asked.template.count("\n") + 1
        raise DialectError(400, f"template: :{line}: unclosed action")
    if asked.template:
        raise DialectError(
            501, "template: only the model's own chat template is applied; leave it out, or send raw prompts"
        )
    if asked.suffix:
        raise DialectError(501, "suffix: text is not filled in between prompt and suffix; leave it out")


class Conversation:
    """One generation on its way from a child to a client, as a stream of lines or one whole answer."""

    def __init__(
        self, request: web.Request, kind: ollama.Kind, asked: GenerateRequest | ChatBody, since: int
    ) -> None:
        self._request = request
        self._kind = kind
        self._asked = asked
        self._clock = services_of(request).clock
        self._stamps = Stamps(self._clock)
        self._since = since
        self._writer = Writer(request, replies.NDJSON)
        self._renderer = self._new_renderer()

    async def run(self, services: Services, want: Want) -> web.StreamResponse:
        try:
            await relay.with_lease(services.children, want, lambda: self._writer.sent, self._attempt)
        except Exception as error:
            if not self._writer.sent or isinstance(error, ConnectionError):
                raise
            told = replies.tell(self._request, error)
            return await self._writer.break_off(ollama.error_body(told.message) + b"\n")
        if self._asked.stream:
            return await self._writer.finish()
        return replies.native(self._renderer.whole())

    def _new_renderer(self) -> ollama.Renderer:
        return ollama.Renderer(
            self._kind,
            self._asked.model,
            stream=self._asked.stream,
            now=self._stamps,
            elapsed=lambda: self._clock() - self._since,
        )

    async def _attempt(self, lease: Lease) -> None:
        self._renderer = self._new_renderer()
        self._renderer.load_duration = int(lease.load_seconds * 1e9)
        asked = self._asked
        if isinstance(asked, GenerateRequest) and not _wants_chat(asked, lease.model):
            await self._complete(asked, lease)
        else:
            call = engine.chat_call(ollama.to_chat_request(asked, lease.context, lease.model.capabilities))
            await relay.generate(lease, call, self._take)

    async def _complete(self, asked: GenerateRequest, lease: Lease) -> None:
        """By ``/completion``, which tells token ids: what ``context`` is made of."""
        prompt = asked.prompt if asked.raw else await _rendered(asked, lease)
        call = engine.completion_call(ollama.to_prompt_request(asked, prompt, lease.context))

        async def take(events: Sequence[Event]) -> None:
            last = events[-1]
            if isinstance(last, Finished) and not asked.raw:
                before = await relay.ask(lease.endpoint, engine.tokenize_call(prompt), engine.read_tokens)
                self._renderer.context = (*before, *last.tokens)
            await self._take(events)

        await relay.generate(lease, call, take)

    async def _take(self, events: Sequence[Event]) -> None:
        event = self._renderer.event
        data = b"".join([event(one) for one in events])
        if data:
            await self._writer.write(data)


def _wants_chat(asked: GenerateRequest, model: ModelCard) -> bool:
    """True when only the engine's chat endpoint will do: it reads images, and tells thinking from the answer.

    A ``context`` is tokens of a rendered prompt, which that endpoint cannot take.
    """
    if asked.raw or asked.context:
        return False
    return bool(asked.images or ollama.thinking(asked, model.capabilities))


async def _rendered(asked: GenerateRequest, lease: Lease) -> str:
    """The prompt as the model's template puts it, after the text of an earlier answer's ``context``."""
    think = ollama.thinking(asked, lease.model.capabilities)
    call = engine.apply_template_call(ollama.turns(asked), think)
    prompt = await relay.ask(lease.endpoint, call, engine.read_prompt)
    if not asked.context:
        return prompt
    return (
        await relay.ask(lease.endpoint, engine.detokenize_call(asked.context), engine.read_content) + prompt
    )
