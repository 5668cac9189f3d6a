"""What OpenAI's API has besides generation: models, and images, which are not served."""

from __future__ import annotations

import datetime

from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError
from llamamgr.core.hub import parse_model_name
from llamamgr.plan.memory import context_of
from llamamgr.proxy import replies
from llamamgr.proxy.relay import want_of
from llamamgr.proxy.services import Services, services_of
from llamamgr.supervise.wishes import identity_of
from llamamgr.wire import anthropic, openai
from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai import ModelEntry

_MOST_LISTED = 1000


async def models(request: web.Request) -> web.Response:
    """The list of models and their aliases, in Anthropic's form for a client that sends ``anthropic-version``."""
    services = services_of(request)
    listed, contexts = await services.listed(), _Contexts(services)
    if replies.dialect_of(request) == "anthropic":
        return _anthropic_list(request, listed, contexts)
    return replies.v1(openai.models_answer([_entry(card, name, contexts) for name, card in listed]))


async def model(request: web.Request) -> web.Response:
    """One model by its name, slashes and all; it is told under the name it was asked for."""
    services = services_of(request)
    name = request.match_info["name"]
    try:
        card = await services.resolve(name)
    except NotFoundError as error:
        # here the whole name is told, tag and all
        raise NotFoundError(f"model '{parse_model_name(name).short}' not found", error.hint) from None
    contexts = _Contexts(services)
    if replies.dialect_of(request) == "anthropic":
        answer = anthropic.model_answer(_anthropic_entry(card, name, contexts))
        return replies.v1(answer, headers=replies.anthropic_headers())
    return replies.v1(openai.model_answer(_entry(card, name, contexts)))


async def no_images(request: web.Request) -> web.Response:
    raise DialectError(
        501,
        "images are not made here: llama.cpp generates text; send images to a vision model by /v1/chat/completions",
    )


class _Contexts:
    """How many tokens a request for a model gets that names no context of its own, as things are now."""

    def __init__(self, services: Services) -> None:
        self._config = services.config
        self._ready = [child for child in services.children.status() if child.state == "ready"]

    def is_loaded(self, card: ModelCard) -> bool:
        return any(child.model.name == card.name for child in self._ready)

    def of(self, card: ModelCard) -> int:
        """Of the loaded child that would answer; what a new one would get when none is loaded, or one with less."""
        asked = want_of(card).options.context or self._config.settings_of(card.name).context
        wanted = context_of(card, asked, self._config.context)
        mine = identity_of(card)
        loaded = [child.context for child in self._ready if identity_of(child.model) == mine]
        return min((context for context in loaded if context >= wanted), default=wanted)


def _anthropic_list(
    request: web.Request, listed: list[tuple[str, ModelCard]], contexts: _Contexts
) -> web.Response:
    names = [name for name, _ in listed]
    after, before = request.query.get("after_id"), request.query.get("before_id")
    asked = request.query.get("limit", "20")
    if not asked.isdigit() or not 1 <= int(asked) <= _MOST_LISTED:
        raise DialectError(400, f"limit: must be between 1 and {_MOST_LISTED}")
    limit = int(asked)
    start = names.index(after) + 1 if after in names else 0
    end = names.index(before) if before in names else len(names)
    start = max(start, end - limit) if before in names else start
    page = listed[start : min(end, start + limit)]
    has_more = start > 0 if before in names else start + len(page) < end
    answer = anthropic.models_answer(
        [_anthropic_entry(card, name, contexts) for name, card in page], has_more
    )
    return replies.v1(answer, headers=replies.anthropic_headers())


def _entry(card: ModelCard, name: str, contexts: _Contexts) -> ModelEntry:
    return ModelEntry(
        name=name,
        created=card.modified,
        context=contexts.of(card),
        size=card.size,
        quant=card.quant,
        capabilities=card.capabilities,
        loaded=contexts.is_loaded(card),
    )


def _anthropic_entry(card: ModelCard, name: str, contexts: _Contexts) -> anthropic.ModelEntry:
    return anthropic.ModelEntry(name, _moment(card), contexts.of(card), card.capabilities)


def _moment(card: ModelCard) -> str:
    return datetime.datetime.fromtimestamp(int(card.modified), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
