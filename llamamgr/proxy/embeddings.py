"""``/v1/embeddings``, ``/api/embed`` and ``/api/embeddings``: all inputs of a request in one call to the engine."""

from __future__ import annotations

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
from llamamgr.wire.errors import DialectError


async def v1_embeddings(request: web.Request) -> web.Response:
    asked = embeddings.parse_v1(await body_of(request))
    services = services_of(request)
    found, _ = await _found(services, asked, await _model(services, asked.model))
    return replies.v1(embeddings.v1_answer(asked.model, found))


async def embed(request: web.Request) -> web.Response:
    services = services_of(request)
    since = services.clock()
    asked = embeddings.parse_embed(await body_of(request))
    found, loaded = await _found(services, asked, await _model(services, asked.model))
    told = embeddings.embed_answer(asked.model, found, services.clock() - since, loaded - since)
    return replies.native(told)


async def legacy_embeddings(request: web.Request) -> web.Response:
    services = services_of(request)
    asked = embeddings.parse_legacy(await body_of(request))
    found, _ = await _found(services, asked, await _model(services, asked.model))
    return replies.native(embeddings.legacy_answer(found))


async def _model(services: Services, name: str) -> ModelCard:
    try:
        return await services.resolve(name)
    except NotFoundError as error:
        # here, and only here, Ollama puts it like this
        raise NotFoundError(f'model "{name}" not found, try pulling it first', error.hint) from None


async def _found(services: Services, asked: EmbeddingRequest, model: ModelCard) -> tuple[Embeddings, int]:
    """The vectors, and when there was a model to ask. Without inputs the model, whichever, is loaded all the same."""
    if asked.bad_options is not None:
        raise asked.bad_options
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
    """A context that a client wants smaller than the one there is holds for its inputs all the same."""
    context = min(asked.load.context or lease.context, lease.context)
    if context < lease.context:
        asked = await _fitted(lease, asked, context)
    try:
        found = await _vectors(lease, asked)
    except GenerationFailedError as error:
        if not embeddings.is_too_long(error.failed.message):
            raise
    else:
        if len(asked.inputs) > 1 or found.tokens <= context - asked.reserve:
            return found
    return await _vectors(lease, await _fitted(lease, asked, context))


async def _vectors(lease: Lease, asked: EmbeddingRequest) -> Embeddings:
    return await relay.ask(lease.endpoint, asked.call(), lambda body: embeddings.read(asked, body))


async def _fitted(lease: Lease, asked: EmbeddingRequest, context: int) -> EmbeddingRequest:
    """``asked`` with inputs of which each fits; ``DialectError`` 400 when one does not and nothing may be cut."""
    inputs = tuple([await _fitted_one(lease, asked, one, context) for one in asked.inputs])
    return msgspec.structs.replace(asked, inputs=inputs)


async def _fitted_one(lease: Lease, asked: EmbeddingRequest, given: Input, context: int) -> Input:
    if not isinstance(given, str):
        tokens = bare = given
    elif len(given.encode()) < context - asked.reserve:
        return given  # a token has at least one byte
    else:
        bare = await _tokens(lease, given)
        tokens = await _tokens(lease, given, add_special=True)
    if len(bare) <= context - asked.reserve and len(tokens) <= context:
        return given
    if not asked.truncate:
        raise DialectError(400, embeddings.TOO_LONG, param="input", code="context_length_exceeded")
    return embeddings.cut(tokens, bare, context, asked.reserve)


async def _tokens(lease: Lease, text: str, *, add_special: bool = False) -> tuple[int, ...]:
    call = engine.tokenize_call(text, add_special=add_special)
    return await relay.ask(lease.endpoint, call, engine.read_tokens)
