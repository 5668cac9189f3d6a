"""``/v1/completions``: all prompts of a request in one call to the engine."""

from __future__ import annotations

import secrets

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import relay, replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.passage import last_words
from llamamgr.proxy.relay import JSON, GenerationFailedError, Want, want_of
from llamamgr.proxy.services import services_of
from llamamgr.proxy.upstream import open_exchange
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import openai_completions
from llamamgr.wire.engine import error_of
from llamamgr.wire.errors import DialectError
from llamamgr.wire.ollama_translate import full_name
from llamamgr.wire.openai_completions import CompletionRequest, Renderer
from llamamgr.wire.script import Script, script_for


async def completions(request: web.Request) -> web.StreamResponse:
    asked = openai_completions.parse(await body_of(request))
    services = services_of(request)
    model = await services.resolve(asked.model)
    if "completion" not in model.capabilities:
        raise DialectError(400, f'"{asked.model}" does not support generate', param="model")
    persona = services.persona_of(model)
    asked = openai_completions.guided(asked, persona)
    if asked.suffix:
        asked = _with_gap(asked, model, script_for(model, persona))
    return await Continuation(request, asked).run(want_of(model))


def _with_gap(asked: CompletionRequest, model: ModelCard, script: Script | None) -> CompletionRequest:
    """A text with a gap as the model's Go template puts it, or for the engine to do so; ``DialectError`` for who knows neither."""
    [before] = asked.prompts
    if script is not None and script.template.can_insert:
        prompt = script.fill_in(str(before), asked.suffix)
        return msgspec.structs.replace(asked, prompts=(prompt,), suffix="")
    if "insert" not in model.capabilities:
        raise DialectError(400, f"{full_name(model.name)} does not support insert", param="suffix")
    return asked


class Continuation:
    """One request, as a stream or one whole answer."""

    def __init__(self, request: web.Request, asked: CompletionRequest) -> None:
        self._request = request
        self._asked = asked
        self._writer = Writer(request, replies.EVENTS)
        self._whole = b""
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = services_of(request).clock() // 10**9

    async def run(self, want: Want) -> web.StreamResponse:
        whole = None if self._asked.stream else self._answer
        return await deliver(
            self._request, want, self._writer, self._attempt, whole=whole, last_words=last_words
        )

    def _answer(self) -> web.Response:
        return replies.v1(self._whole)

    async def _attempt(self, lease: Lease) -> None:
        echoed = [await _text(lease, prompt) for prompt in self._asked.prompts] if self._asked.echo else []
        card = lease.build.card
        head = {
            "id": self._id,
            "created": self._created,
            "model": self._asked.model,
            "system_fingerprint": f"b{card.number}-{card.commit}",
        }
        renderer = Renderer(self._asked, head, echoed)
        call = self._asked.call()
        async with open_exchange(lease.endpoint, call.method, call.path, JSON, call.body) as exchange:
            if exchange.status != 200:
                raise GenerationFailedError(error_of(exchange.status, await exchange.read()))
            async for data in exchange:
                out = renderer.feed(data)
                if out:
                    await self._writer.write(out)
                if renderer.ended:
                    break
        renderer.eof()
        if renderer.failed:
            raise GenerationFailedError(renderer.failed)
        told = renderer.usage
        lease.tokens.add(told.prompt, told.cached, told.completion)
        if not self._asked.stream:
            self._whole = renderer.whole()


async def _text(lease: Lease, prompt: openai_completions.Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return await relay.text_of(lease, prompt, "prompt")
