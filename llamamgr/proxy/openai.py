"""What OpenAI's API has besides generation: models, and images, which are not served."""

from __future__ import annotations

import asyncio
import datetime

from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError
from llamamgr.core.hub import parse_model_name
from llamamgr.proxy import replies
from llamamgr.proxy.services import Services, services_of
from llamamgr.wire import anthropic, openai
from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai import ModelEntry

_MOST_LISTED = 1000


async def models(request: web.Request) -> web.Response:
    """The list of models, in Anthropic's form for a client that sends ``anthropic-version``."""
    services = services_of(request)
    listing = await asyncio.to_thread(services.index.refresh)
    cards = sorted(services.visible(listing.models), key=lambda card: -card.modified)
    if replies.dialect_of(request) == "anthropic":
        return _anthropic_list(request, cards)
    loaded = _loaded(services)
    return replies.v1(openai.models_answer([_entry(card, card.name, loaded) for card in cards]))


async def model(request: web.Request) -> web.Response:
    """One model by its name, slashes and all; it is told under the name it was asked for."""
    services = services_of(request)
    name = request.match_info["name"]
    try:
        card = await services.resolve(name)
    except NotFoundError as error:
        # here the whole name is told, tag and all
        raise NotFoundError(f"model '{parse_model_name(name).short}' not found", error.hint) from None
    if replies.dialect_of(request) == "anthropic":
        answer = anthropic.model_answer(_anthropic_entry(card, name))
        return replies.v1(answer, headers=replies.anthropic_headers())
    return replies.v1(openai.model_answer(_entry(card, name, _loaded(services))))


async def no_images(request: web.Request) -> web.Response:
    raise DialectError(
        501,
        "images are not made here: llama.cpp generates text; send images to a vision model by /v1/chat/completions",
    )


def _anthropic_list(request: web.Request, cards: list[ModelCard]) -> web.Response:
    names = [card.name for card in cards]
    after, before = request.query.get("after_id"), request.query.get("before_id")
    asked = request.query.get("limit", "20")
    if not asked.isdigit() or not 1 <= int(asked) <= _MOST_LISTED:
        raise DialectError(400, f"limit: must be between 1 and {_MOST_LISTED}")
    limit = int(asked)
    start = names.index(after) + 1 if after in names else 0
    end = names.index(before) if before in names else len(names)
    start = max(start, end - limit) if before in names else start
    page = cards[start : min(end, start + limit)]
    has_more = start > 0 if before in names else start + len(page) < end
    answer = anthropic.models_answer([_anthropic_entry(card, card.name) for card in page], has_more)
    return replies.v1(answer, headers=replies.anthropic_headers())


def _entry(card: ModelCard, name: str, loaded: frozenset[str]) -> ModelEntry:
    return ModelEntry(
        name=name,
        created=card.modified,
        context=card.context,
        size=card.size,
        quant=card.quant,
        capabilities=card.capabilities,
        loaded=card.name in loaded,
    )


def _loaded(services: Services) -> frozenset[str]:
    return frozenset(child.model.name for child in services.children.status() if child.state == "ready")


def _anthropic_entry(card: ModelCard, name: str) -> anthropic.ModelEntry:
    return anthropic.ModelEntry(name, _moment(card), card.context, card.capabilities)


def _moment(card: ModelCard) -> str:
    return datetime.datetime.fromtimestamp(int(card.modified), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
