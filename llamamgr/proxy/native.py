"""Ollama's generation: ``/api/generate`` and ``/api/chat``."""

from __future__ import annotations

import secrets
import string
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import relay, replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.moments import Stamps
from llamamgr.proxy.performance import completion, fitting, marker, reading
from llamamgr.proxy.relay import GenerationFailedError, Take, Want
from llamamgr.proxy.services import Services, services_of
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease, LoadOptions
from llamamgr.wire import engine, ollama, placing
from llamamgr.wire.engine import EngineCall
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import ChatRequest, Event, Finished, TextDelta, Think
from llamamgr.wire.ollama import ChatBody, GenerateRequest
from llamamgr.wire.persona import Persona
from llamamgr.wire.script import Script, script_of
from llamamgr.wire.template_answer import Marks, TemplateAnswer

_CALL_LETTERS = string.ascii_lowercase + string.digits


async def generate(request: web.Request) -> web.StreamResponse:
    return await _answer(request, "generate", ollama.parse_generate(await body_of(request)))


async def chat(request: web.Request) -> web.StreamResponse:
    return await _answer(request, "chat", ollama.parse_chat(await body_of(request)))


async def _answer(
    request: web.Request, kind: ollama.Kind, asked: GenerateRequest | ChatBody
) -> web.StreamResponse:
    services = services_of(request)
    since = services.clock()
    model = await services.resolve(asked.model)
    persona = services.persona_of(model)
    if asked.is_unload:
        await services.children.unload(model)
    else:
        ollama.check_capabilities(asked, model.capabilities, model.name)
        if asked.bad_options is not None:
            raise asked.bad_options
        wishes = asked.options.over(persona.options).load
        want = Want(model, LoadOptions(**msgspec.structs.asdict(wishes)), asked.keep_alive)
        if not asked.is_load:
            if asked.bad_format is not None:
                raise asked.bad_format
            conversation = Conversation(request, kind, asked, model, persona, since)
            return await conversation.run(services, want)
        await relay.with_lease(services.children, want, _nothing)
    created = Stamps(services.clock)()
    return replies.native(ollama.load_answer(kind, asked.model, created, unload=asked.is_unload))


async def _nothing(lease: Lease) -> None:
    """What a load does with its lease."""


class Conversation:
    """One generation on its way from a child to a client, as a stream of lines or one whole answer."""

    def __init__(
        self,
        request: web.Request,
        kind: ollama.Kind,
        asked: GenerateRequest | ChatBody,
        model: ModelCard,
        persona: Persona,
        since: int,
    ) -> None:
        self._request = request
        self._kind = kind
        self._asked = asked
        self._model = model  # a lease may tell another one of the same file
        self._persona = persona
        self._script = script_of(asked, model, persona)
        self._clock = services_of(request).clock
        self._stamps = Stamps(self._clock)
        self._since = since
        self._writer = Writer(request, replies.NDJSON)
        self._renderer = self._new_renderer()

    async def run(self, services: Services, want: Want) -> web.StreamResponse:
        if self._asked.shows_prompt:
            return await self._show_prompt(services, want)
        try:
            await relay.with_lease(services.children, want, self._attempt, lambda: self._writer.sent)
        except Exception as error:
            if not self._writer.sent or isinstance(error, ConnectionError):
                self._reword(error)
                raise
            told = replies.tell(self._request, error)
            return await self._writer.break_off(ollama.error_body(told.message) + b"\n")
        if self._asked.stream:
            return await self._writer.finish()
        return replies.native(self._renderer.whole())

    def _reword(self, error: Exception) -> None:
        """Raise what Ollama says where the engine refuses, if it has words of its own for that."""
        own = ollama.refusal(self._asked, error.failed) if isinstance(error, GenerationFailedError) else None
        if own is not None:
            raise own from None

    async def _show_prompt(self, services: Services, want: Want) -> web.Response:
        prompt = placing.shown(await relay.with_lease(services.children, want, self._prompt))
        asked = self._asked
        answer = ollama.prompt_answer(self._kind, asked.model, self._stamps(), prompt, len(asked.images))
        return replies.native(answer)

    async def _prompt(self, lease: Lease) -> str:
        """As it would go to the engine, or as the engine would make it, with tags for media."""
        asked = self._asked
        chat = ollama.to_chat_request(asked, lease.context, self._model.capabilities, self._persona)
        if self._script is not None:
            return await self._recited(self._script, chat, lease)
        if isinstance(asked, ChatBody):
            return await self._by_engine(
                lease, engine.apply_template_call(chat.messages, chat.think, chat.tools)
            )
        if asked.suffix:
            raise DialectError(400, "the engine makes a prompt with a suffix itself, and does not show it")
        return placing.in_raw(asked.prompt, asked.images) if asked.raw else await self._rendered(asked, lease)

    def _new_renderer(self) -> ollama.Renderer:
        clock, since = (
            self._clock,
            self._since,
        )  # not self, whose request would then wait for the garbage collector
        return ollama.Renderer(
            self._kind,
            self._asked.model,
            stream=self._asked.stream,
            now=self._stamps,
            elapsed=lambda: clock() - since,
            call_id=None if self._script is None else _call_id,
        )

    async def _attempt(self, lease: Lease) -> None:
        self._renderer = self._new_renderer()
        self._renderer.load_duration = (
            self._clock() - self._since
        )  # so Ollama counts it: until there was a model to ask
        asked, model, persona = self._asked, self._model, self._persona
        if self._script is not None:
            await self._perform(self._script, lease)
        elif isinstance(asked, GenerateRequest) and asked.suffix:
            shape = ollama.to_prompt_request(asked, "", lease.context, persona)
            await relay.generate(lease, engine.infill_call(asked.prompt, asked.suffix, shape), self._take)
        elif isinstance(asked, GenerateRequest) and not _wants_chat(asked, model):
            if asked.raw:
                prompt = placing.in_raw(asked.prompt, asked.images)
                await self._complete(prompt, asked.images, lease, self._take)
            else:
                await self._go_on(asked, lease)
        else:
            await self._fitting(lease, lambda chat: self._converse(chat, lease))

    async def _fitting(self, lease: Lease, once: Callable[[ChatRequest], Awaitable[None]]) -> None:
        """``once`` with the conversation; one that is too long loses its oldest turns, unless ``truncate`` is false."""
        asked = self._asked
        chat = ollama.to_chat_request(asked, lease.context, self._model.capabilities, self._persona)
        is_cut = isinstance(asked, ChatBody) and asked.truncate
        await fitting(lease, chat, once, lambda: is_cut and not self._writer.sent)

    async def _perform(self, script: Script, lease: Lease) -> None:
        """By a Go template: the prompt is rendered here, and what comes back is read here."""

        async def recite(chat: ChatRequest) -> None:
            prompt = await self._recited(script, chat, lease)
            await self._complete(
                prompt, script.media(chat), lease, reading(script.reader(chat, prompt), self._take)
            )

        await self._fitting(lease, recite)

    async def _recited(self, script: Script, chat: ChatRequest, lease: Lease) -> str:
        """The prompt by a Go template, after the text of an earlier answer's ``context``."""
        asked = self._asked
        if isinstance(asked, GenerateRequest) and asked.suffix:
            prompt = script.fill_in(asked.prompt, asked.suffix)
        else:
            prompt = script.prompt(chat, self._clock())
        if before := getattr(asked, "context", ()):
            prompt = await relay.text_of(lease, before, "context") + prompt
        return prompt

    async def _complete(self, prompt: str, media: tuple[str, ...], lease: Lease, take: Take) -> None:
        """By ``/completion``; what comes is gone on from as it is, unless there were media, which tokens cannot tell."""
        asked = self._asked

        async def itself() -> str:
            return prompt

        if isinstance(asked, GenerateRequest) and not asked.raw and not media:
            take = self._remembering(lease, itself, take)
        shape = ollama.to_prompt_request(asked, prompt, lease.context, self._persona, media)
        await relay.generate(lease, await completion(lease, shape), take)

    async def _go_on(self, asked: GenerateRequest, lease: Lease) -> None:
        """After a ``context``, by ``/completion``, which does not tell thoughts from the answer: that is done here."""
        prompt = await self._rendered(asked, lease)
        if not ollama.thinking(asked, self._model.capabilities) or asked.response_format is not None:
            return await self._complete(prompt, asked.images, lease, self._take)
        shape = ollama.to_prompt_request(asked, prompt, lease.context, self._persona, asked.images)
        take = self._take if asked.images else self._without_thoughts(asked, lease)
        reader = TemplateAnswer(Marks(), prompt=prompt, thinks=True)
        return await relay.generate(lease, await completion(lease, shape), reading(reader, take))

    async def _converse(self, chat: ChatRequest, lease: Lease) -> None:
        """By the engine's chat endpoint."""
        asked = self._asked
        take: Take = self._take
        if isinstance(asked, GenerateRequest) and not asked.images:
            take = self._without_thoughts(asked, lease)
        await relay.generate(lease, engine.chat_call(chat), take)

    def _without_thoughts(self, asked: GenerateRequest, lease: Lease) -> Take:
        """What a prompt's answer is gone on from has no thoughts, like any earlier turn."""
        return self._remembering(lease, lambda: self._rendered(asked, lease, think=False), self._take)

    def _remembering(self, lease: Lease, prompt: Callable[[], Awaitable[str]], take: Take) -> Take:
        """``take``, after which the answer has its ``context``: the tokens of ``prompt`` and of all that was said after it."""
        said: list[str] = []

        async def remember(events: Sequence[Event]) -> None:
            said.extend([event.text for event in events if isinstance(event, TextDelta)])
            if isinstance(events[-1], Finished):
                told = engine.tokenize_call(await prompt() + "".join(said))
                self._renderer.context = await relay.ask(lease.endpoint, told, engine.read_tokens)
            await take(events)

        return remember

    async def _rendered(self, asked: GenerateRequest, lease: Lease, think: Think = None) -> str:
        """The prompt as the file's own template puts it, after the text of an earlier answer's ``context``."""
        if think is None:
            think = ollama.thinking(asked, self._model.capabilities)
        call = engine.apply_template_call(ollama.turns(asked, self._persona), think)
        prompt = await self._by_engine(lease, call)
        if not asked.context:
            return prompt
        return await relay.text_of(lease, asked.context, "context") + prompt

    async def _by_engine(self, lease: Lease, call: EngineCall) -> str:
        """A prompt that the engine renders, with tags where it has put its markers for media."""
        prompt = await relay.ask(lease.endpoint, call, engine.read_prompt)
        return placing.from_markers(prompt, await marker(lease)) if self._asked.images else prompt

    async def _take(self, events: Sequence[Event]) -> None:
        data = self._renderer.events(events)
        if data:
            await self._writer.write(data)


def _call_id() -> str:
    """As Ollama makes them for calls that it reads out of an answer itself."""
    return f"call_{''.join(secrets.choice(_CALL_LETTERS) for _ in range(8))}"


def _wants_chat(asked: GenerateRequest, model: ModelCard) -> bool:
    """True when only the engine's chat endpoint will do: it reads images, and tells thinking from the answer.

    A ``context`` is tokens of a rendered prompt, which that endpoint cannot take.
    """
    if asked.raw or asked.context:
        return False
    return bool(asked.images or ollama.thinking(asked, model.capabilities))
