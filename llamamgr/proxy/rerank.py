"""Reranking: ``/v1/rerank``, ``/v1/reranking``, ``/v2/rerank`` and ``/rerank``."""

from __future__ import annotations

import asyncio
import secrets

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.proxy import relay, replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.relay import Want
from llamamgr.proxy.services import Services, services_of
from llamamgr.supervise.lease import Lease
from llamamgr.wire import rerank as wire
from llamamgr.wire.errors import DialectError
from llamamgr.wire.rerank import Scores

CAPABILITY = "rerank"


async def rerank(request: web.Request) -> web.Response:
    asked = wire.parse(await body_of(request))
    services = services_of(request)
    name = asked.model or request.query.get("model", "")
    model = await services.resolve(name) if name else await _only(services)
    asked = msgspec.structs.replace(asked, model=name or model.name)
    if CAPABILITY not in model.capabilities:
        raise DialectError(501, f'"{asked.model}" is no reranking model', param="model")

    async def attempt(lease: Lease) -> Scores:
        scores = await relay.ask(
            lease.endpoint, asked.call(), lambda body: wire.read(asked, body, model.arch)
        )
        lease.tokens.add(scores.tokens, 0, 0)
        return scores

    scores = await relay.with_lease(services.children, Want(model), attempt)
    return replies.v1(wire.answer(asked, scores, f"rerank-{secrets.token_hex(12)}"))


async def _only(services: Services) -> ModelCard:
    """TEI's form names no model, which is clear as long as there is one that can rerank."""
    listing = await asyncio.to_thread(services.index.listing)
    models = [card for card in services.visible(listing.models) if CAPABILITY in card.capabilities]
    if len(models) != 1:
        raise DialectError(400, f"model is required: {len(models)} models can rerank", param="model")
    services.claim(models[0].name)
    return models[0]
