"""Ollama's endpoints that change which models there are: create, copy, delete, blobs, pull, push."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from llamamgr.core.cards import ModelCard
from llamamgr.core.digests import parse_digest
from llamamgr.core.errors import InvalidNameError, LlamamgrError, NotFoundError, UsageError
from llamamgr.core.hub import parse_model_name
from llamamgr.core.names import ModelName
from llamamgr.models import create as making
from llamamgr.models.create import Wanted
from llamamgr.models.progress import SUCCESS, Progress
from llamamgr.models.pull import Puller, Wish
from llamamgr.models.store import Incoming
from llamamgr.proxy import replies
from llamamgr.proxy.services import SERVICES, Services, services_of
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Children
from llamamgr.wire import golang, ollama, ollama_models
from llamamgr.wire.errors import DialectError
from llamamgr.wire.ollama_models import CreateRequest

_CHUNK = 1024 * 1024  # bytes of an upload gathered before they are hashed and written


async def pulls(app: web.Application) -> AsyncIterator[None]:
    """Of the public application's life: what pulls and makes for every front."""
    services = app[SERVICES]
    puller = Puller(services.index.store, lambda: services.config.registry, services.version)
    async with services.transfers.open(puller), services.makers.open():
        yield


async def status(request: web.Request) -> web.Response:
    """There is no cloud here."""
    return replies.native(b'{"cloud":{"disabled":true,"source":"config"}}')


async def create(request: web.Request) -> web.StreamResponse:
    asked = ollama_models.parse_create(await request.read())
    name = ModelName.parse(asked.model)
    ollama_models.require_origin(asked)
    services = services_of(request)
    services.claim(name.short)
    return await _tell(request, services, _created(services, name, asked), stream=asked.stream)


async def copy(request: web.Request) -> web.Response:
    asked = ollama_models.parse_copy(await request.read())
    for what, text in (("source", asked.source), ("destination", asked.destination)):
        if not _is_name(text):
            raise DialectError(400, f"{what} {golang.quote(text.encode())} is invalid")
    services = services_of(request)
    try:
        card = await services.find(asked.source)
    except NotFoundError as error:
        source = golang.quote(asked.source.encode())
        raise NotFoundError(f"model {source} not found", error.hint) from None
    services.claim(ModelName.parse(asked.destination).short)
    await asyncio.to_thread(making.copy, services.index.store, card, ModelName.parse(asked.destination))
    await asyncio.to_thread(services.index.refresh)
    return web.Response()


async def delete(request: web.Request) -> web.Response:
    model = ollama_models.parse_delete(await request.read())
    if not _is_name(model):
        raise DialectError(400, f"name {golang.quote(model.encode())} is invalid")
    services = services_of(request)
    card = services.index.require_itself(model, await services.find(model))
    await asyncio.to_thread(making.delete, services.index.store, card)
    await asyncio.to_thread(services.index.refresh)
    for loaded in loaded_as(services.children, card.name):
        await services.children.unload(loaded)
    return web.Response()


def loaded_as(children: Children, name: str) -> list[ModelCard]:
    """The models of the children that ``ps`` lists by that name; the index may have another one of it by now, or none."""
    key = parse_model_name(name).key
    return [child.model for child in children.status() if parse_model_name(child.model.name).key == key]


async def has_blob(request: web.Request) -> web.Response:
    hex_digest = _digest(request)
    if services_of(request).index.store.has_blob(hex_digest):
        return web.Response()
    raise NotFoundError(f"blob sha256:{hex_digest} is not in the store", "POST it to the same address")


async def receive_blob(request: web.Request) -> web.Response:
    """An upload of any length; one that is not what its digest says, or is broken off, leaves nothing."""
    hex_digest = _digest(request)
    store = services_of(request).index.store
    if store.has_blob(hex_digest):
        return web.Response()
    incoming = store.receive()  # not in a thread: a client that leaves meanwhile would leave it behind
    try:
        await _receive(request, incoming)
        await asyncio.to_thread(incoming.finish, hex_digest)
    finally:
        incoming.drop()
    return web.Response(status=201)


async def pull(request: web.Request) -> web.StreamResponse:
    asked = ollama_models.parse_transfer(await request.read(), "PullRequest")
    services = services_of(request)
    if await asyncio.to_thread(services.index.beyond_pulling, asked.model) is None:
        services.claim(asked.model)
        statuses = services.transfers.pull(Wish(asked.model, asked.insecure))
    else:
        await services.find(asked.model)
        statuses = _nothing_to_fetch()
    return await _tell(request, services, statuses, stream=asked.stream)


async def push(request: web.Request) -> web.Response:
    asked = ollama_models.parse_transfer(await request.read(), "PushRequest")
    if not asked.model:
        raise DialectError(400, "model is required")
    services_of(request).claim(asked.model)
    raise DialectError(
        501, "models are not pushed from here: upload the files with the tools of the registry"
    )


def _digest(request: web.Request) -> str:
    text = request.match_info["digest"]
    if "/" in text:
        raise web.HTTPNotFound
    return parse_digest(text)


def _is_name(text: str) -> bool:
    try:
        ModelName.parse(text)
    except InvalidNameError:
        return False
    return True


async def _receive(request: web.Request, incoming: Incoming) -> None:
    gathered = bytearray()
    async for data in request.content.iter_any():
        gathered += data
        if len(gathered) >= _CHUNK:
            await asyncio.to_thread(incoming.write, bytes(gathered))
            gathered.clear()
    await asyncio.to_thread(incoming.write, bytes(gathered))


async def _nothing_to_fetch() -> AsyncGenerator[Progress, None]:
    yield SUCCESS


async def _created(
    services: Services, name: ModelName, asked: CreateRequest
) -> AsyncGenerator[Progress, None]:
    """The steps of a creation; a base that is not here is pulled first."""
    base: ModelCard | None = None
    if asked.base:
        try:
            base = await services.find(asked.base)
        except NotFoundError:
            async with aclosing(services.transfers.pull(Wish(asked.base))) as steps:
                async for step in steps:
                    if step != SUCCESS:
                        yield step
            await asyncio.to_thread(services.index.refresh)
            base = await services.find(asked.base)
    store = services.index.store
    try:
        files = tuple(store.blob(parse_digest(digest)) for _, digest in sorted(asked.files or ()))
        adapters = tuple(store.blob(parse_digest(digest)) for _, digest in asked.adapters)
    except UsageError:
        yield Progress("parsing GGUF")
        raise
    wanted = Wanted(
        name,
        base,
        parent=base.name if base else "",
        files=files,
        adapters=adapters,
        template=asked.template,
        system=asked.system,
        settings=asked.settings,
        messages=asked.messages,
        licenses=asked.licenses,
        quantize=asked.quantize,
    )
    async with aclosing(
        services.makers.make(lambda tell: making.create(store, wanted, tell, services.quantize))
    ) as steps:
        async for step in steps:
            yield step


async def _tell(
    request: web.Request, services: Services, steps: AsyncGenerator[Progress, None], *, stream: bool
) -> web.StreamResponse:
    """The steps as lines, or the last one. A failure after the first line is the last line."""
    writer = Writer(request, replies.NDJSON)
    last = SUCCESS
    async with aclosing(steps):
        try:
            async for step in steps:
                if step == SUCCESS:
                    # who reads this line may ask for the model at once
                    await asyncio.to_thread(services.index.refresh)
                last = step
                if stream:
                    await writer.write(msgspec.json.encode(step) + b"\n")
        except ConnectionError:
            raise
        except Exception as error:
            if not writer.sent:
                raise
            await writer.write(_last_words(request, error) + b"\n")
    return await writer.finish() if stream else replies.native(msgspec.json.encode(last))


def _last_words(request: web.Request, error: Exception) -> bytes:
    """The line that tells of a failure; on the control socket it has the hint and the exit code of the command line."""
    peer = request.get_extra_info("socket")
    is_control = peer is not None and peer.family == getattr(socket, "AF_UNIX", None)
    told = replies.tell(request, error, hints=is_control)
    if is_control and isinstance(error, LlamamgrError):
        return msgspec.json.encode({"error": told.message, "exit": error.exit_code})
    return ollama.error_body(told.message)


MODEL_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/api/create", create),
    ("POST", "/api/copy", copy),
    ("DELETE", "/api/delete", delete),
    ("HEAD", "/api/blobs/{digest}", has_blob),
    ("POST", "/api/blobs/{digest}", receive_blob),
    ("POST", "/api/pull", pull),
    ("POST", "/api/push", push),
    ("GET", "/api/status", status),
)
