"""What there is and what runs: ``/api/tags``, ``/api/show``, ``/api/ps``."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import NotFoundError
from llamamgr.core.hub import parse_model_name
from llamamgr.core.names import DEFAULT_TAG
from llamamgr.models import details
from llamamgr.proxy import replies
from llamamgr.proxy.moments import expiry
from llamamgr.proxy.services import Services, is_of_cloud, services_of
from llamamgr.supervise.lease import ChildStatus
from llamamgr.wire import golang, ollama
from llamamgr.wire.errors import DialectError

_COPILOT = "GitHubCopilotChat/"  # shows a model by what is to be its file's name; Ollama tells it the one it asked for


async def tags(request: web.Request) -> web.Response:
    listed = await services_of(request).listed(_with_tag)
    cards = [msgspec.structs.replace(card, name=name) for name, card in listed]
    return _json({"models": [details.tags_entry(card) for card in cards]})


async def show(request: web.Request) -> web.Response:
    asked = ollama.parse_show(await request.read())
    services = services_of(request)
    try:
        card = await services.find(asked.model)
    except NotFoundError as error:
        if is_of_cloud(asked.model):
            raise DialectError(
                403, "ollama cloud is disabled: remote model details are unavailable"
            ) from None
        # here the whole name is told, tag and all
        name = parse_model_name(asked.model).short
        raise NotFoundError(f"model '{name}' not found", error.hint) from None
    shown = await asyncio.to_thread(_shown, services, card, asked)
    if request.headers.get("User-Agent", "").startswith(_COPILOT):
        shown["model_info"]["general.basename"] = asked.model
    return _json(shown)


def _shown(services: Services, card: ModelCard, asked: ollama.ShowRequest) -> dict[str, Any]:
    index, verbose = services.index, asked.verbose
    header, projector = index.header(card, verbose), index.projector_header(card, verbose)
    return details.show_answer(card, header, verbose, asked.system, asked.options, projector)


async def running(request: web.Request) -> web.Response:
    services = services_of(request)
    now = services.clock()
    children = [
        child
        for child in services.children.status()
        if child.state != "stopping" and services.shows(child.model.name)
    ]
    return _json({"models": [_running(child, now) for child in children]})


def _running(child: ChildStatus, now: int) -> dict[str, Any]:
    card = child.model
    return {
        "name": card.name,
        "model": card.name,
        "size": child.memory + child.memory_gpu,
        "digest": details.digest(card),
        "details": details.details(card),
        "expires_at": expiry(child.expires, now),
        "size_vram": child.memory_gpu,
        "context_length": child.context,
    }


def _with_tag(alias: str) -> str:
    """As Ollama lists names: always with a tag."""
    return alias if ":" in alias.rpartition("/")[2] else f"{alias}:{DEFAULT_TAG}"


def _json(value: Any) -> web.Response:
    return replies.native(golang.encode(value))
