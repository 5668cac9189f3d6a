"""``/v1/embeddings``, ``/api/embed`` and ``/api/embeddings``: all inputs of a request in one call to the engine."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError
from llamamgr.proxy import relay, replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.relay import GenerationFailedError, Want
from llamamgr.proxy.services import Services, services_of
from llamamgr.supervise.lease import Lease, LoadOptions
from llamamgr.wire import embeddings, engine
from llamamgr.wire.embeddings import EmbeddingRequest, Embeddings, Input
from llamamgr.wire.errors import DialectError, LaterMistakeError


async def v1_embeddings(request: web.Request) -> web.Response:
    asked = embeddings.parse_v1(await body_of(request))
    services = services_of(request)
    found, _ = await _found(services, asked, await _model(services, asked.model))
    return replies.v1(embeddings.v1_answer(asked.model, found))


async def embed(request: web.Request) -> web.Response:
    services = services_of(request)
    since = services.clock()
    asked = await _asked(services, embeddings.parse_embed, await body_of(request))
    found, loaded = await _found(services, asked, await _model(services, asked.model))
    told = embeddings.embed_answer(asked.model, found, services.clock() - since, loaded - since)
    return replies.native(told)


async def legacy_embeddings(request: web.Request) -> web.Response:
    services = services_of(request)
    asked = await _asked(services, embeddings.parse_legacy, await body_of(request))
    found, _ = await _found(services, asked, await _model(services, asked.model))
    return replies.native(embeddings.legacy_answer(found))


async def _asked(
    services: Services, parse: Callable[[bytes], EmbeddingRequest], body: bytes
) -> EmbeddingRequest:
    try:
        return parse(body)
    except LaterMistakeError as mistake:
        await _model(services, mistake.model)
        raise


async def _model(services: Services, name: str) -> ModelCard:
    try:
        return await services.resolve(name)
    except NotFoundError as error:
        # here, and only here, Ollama puts it like this
        raise NotFoundError(f'model "{name}" not found, try pulling it first', error.hint) from None


async def _found(services: Services, asked: EmbeddingRequest, model: ModelCard) -> tuple[Embeddings, int]:
    """The vectors, and when there was a model to ask. Without inputs the model, whichever, is loaded all the same."""
    if asked.inputs and "embedding" not in model.capabilities:
        raise DialectError(501, embeddings.UNSUPPORTED, param="model")

    async def attempt(lease: Lease) -> tuple[Embeddings, int]:
        loaded = services.clock()
        found = await _ask(lease, asked) if asked.inputs else Embeddings((), 0)
        lease.tokens.add(found.tokens, 0, 0)
        return found, loaded

    want = Want(model, LoadOptions(**msgspec.structs.asdict(asked.load)), asked.keep_alive)
    return await relay.with_lease(services.children, want, attempt)


async def _ask(lease: Lease, asked: EmbeddingRequest) -> Embeddings:
    found = [await _ask_once(lease, batch) for batch in asked.batches()]
    if len(found) == 1:
        return found[0]
    vectors = tuple(vector for one in found for vector in one.vectors)
    return Embeddings(vectors, sum(one.tokens for one in found))


async def _ask_once(lease: Lease, asked: EmbeddingRequest) -> Embeddings:
    try:
        return await relay.ask(lease.endpoint, asked.call(), lambda body: embeddings.read(asked, body))
    except GenerationFailedError as error:
        if not embeddings.is_too_long(error.failed.message):
            raise
    if not asked.truncate:
        raise DialectError(400, embeddings.TOO_LONG, param="input", code="context_length_exceeded")
    inputs = tuple([await _cut(lease, one) for one in asked.inputs])
    shorter = msgspec.structs.replace(asked, inputs=inputs)
    return await relay.ask(lease.endpoint, shorter.call(), lambda body: embeddings.read(shorter, body))


async def _cut(lease: Lease, given: Input) -> Input:
    """``given`` as tokens, no more than the context holds."""
    if not isinstance(given, str):
        return given[: lease.context]
    tokens = await relay.ask(
        lease.endpoint, engine.tokenize_call(given, add_special=True), engine.read_tokens
    )
    bare = await relay.ask(lease.endpoint, engine.tokenize_call(given), engine.read_tokens)
    return embeddings.cut(tokens, bare, lease.context)
