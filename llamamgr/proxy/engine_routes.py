"""llama.cpp's own endpoints, and anything else of an engine under ``/upstream/{model}/``.

What an engine answers passes as it comes, status, type and bytes, streams included. A client's credentials and cookies go no
further than here, nor do headers that belong to one connection (RFC 9110 §7.6.1).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from urllib.parse import unquote

import msgspec
from aiohttp import web

from llamamgr.core.cards import ModelCard
from llamamgr.core.errors import InvalidNameError, NotFoundError
from llamamgr.proxy import replies
from llamamgr.proxy.bodies import body_of
from llamamgr.proxy.delivery import deliver
from llamamgr.proxy.relay import JSON, Want
from llamamgr.proxy.replies import Told
from llamamgr.proxy.services import OutOfScopeError, Services, services_of
from llamamgr.proxy.upstream import open_exchange
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease
from llamamgr.wire import golang, openai
from llamamgr.wire.errors import DialectError
from llamamgr.wire.guidance import bounded_body
from llamamgr.wire.persona import NOBODY, with_settings

_HOP_BY_HOP = (
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
# of one connection, ours to say, or nobody's business behind this proxy
_KEPT_BACK = frozenset(
    {
        *_HOP_BY_HOP,
        "expect",
        *("host", "content-length", "authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"),
        *(
            "origin",
            "referer",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
        ),
        "content-encoding",  # requests are unpacked when they come in
        # with it the engine generates on after the client has left
        "x-conversation-id",
    }
)
_NOT_TOLD = frozenset(
    {
        *_HOP_BY_HOP,
        "server",
        *("set-cookie", "vary", "access-control-allow-origin", "access-control-allow-credentials"),
        *("access-control-allow-methods", "access-control-allow-headers"),
    }
)


# requests that generate, and the name under which each surely limits its answer
_GENERATING = {
    "/completion": "n_predict",
    "/completions": "n_predict",
    "/infill": "n_predict",
    "/v1/completions": "max_tokens",
    "/chat/completions": "max_tokens",
    "/v1/chat/completions": "max_tokens",
    "/v1/messages": "max_tokens",
    "/responses": "max_output_tokens",
    "/v1/responses": "max_output_tokens",
}
# what aiohttp unpacks before anybody sees it
_UNPACKED = ("gzip", "deflate", "br", "zstd")


class _Named(msgspec.Struct):
    model: str | None = None


async def engine(request: web.Request) -> web.StreamResponse:
    """A path of the engine's own, for the model that body or query name, or the only one that is loaded."""
    services = services_of(request)
    body = await body_of(request)
    name = request.query.get("model", "")
    if not name and body.strip():
        name = golang.decode(body, _Named, "openai.Request", {}).model or ""
    model = await services.resolve(name) if name else await _only(services)
    query = "&".join(
        part for part in request.rel_url.raw_query_string.split("&") if not part.startswith("model=")
    )
    path = request.path + (f"?{query}" if query else "")
    if request.path in _GENERATING:
        body = _bounded_body(services, model, request.path, body)
    return await Through(request, request.method, path, JSON if body else (), body).run(Want(model))


async def upstream(request: web.Request) -> web.StreamResponse:
    """``/upstream/{model}/{path}``: any request, as it is; its body goes on as it comes."""
    services = services_of(request)
    rest = request.raw_path.removeprefix("/upstream/")
    rest, question, query = rest.partition("?")
    model, path = await _split(services, rest)
    target = f"/{path}{question}{query}"
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _KEPT_BACK]
    if not request.can_read_body:
        return await Through(request, request.method, target, headers).run(Want(model))
    if request.headers.get("Content-Encoding", "").lower() in _UNPACKED:
        headers = [(name, value) for name, value in headers if name.lower() != "content-encoding"]
        body: bytes | None = await request.read()  # its length is known at its end only
    else:
        body = None
    if f"/{unquote(path)}" in _GENERATING and services.config.settings_of(model.name).shapes_requests:
        body = _bounded_body(services, model, f"/{unquote(path)}", await request.read())
    if body is not None:
        return await Through(request, request.method, target, headers, body).run(Want(model))
    limit, length = services.config.server.body_limit, request.content_length
    if length is not None and length > limit:
        raise web.HTTPRequestEntityTooLarge(limit, length)
    pieces = _bounded(request, limit)
    return await Through(request, request.method, target, headers, pieces, length).run(Want(model))


def _bounded_body(services: Services, model: ModelCard, path: str, body: bytes) -> bytes:
    """``body`` within the model's settings. A Modelfile has no say in the engine's own requests."""
    settings = services.config.settings_of(model.name)
    if not settings.shapes_requests:
        return body
    return bounded_body(body, with_settings(NOBODY, settings), _GENERATING[path])


async def _bounded(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes, up to ``limit`` bytes."""
    size = 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(limit, size)
        yield piece


class Through:
    """One request to a child, passed as it is, and its answer.

    ``body`` is bytes, or pieces to be sent as they come (``length`` bytes, None when that is not known), which can be sent only
    once.
    """

    def __init__(
        self,
        request: web.Request,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterable[bytes] = b"",
        length: int | None = None,
    ) -> None:
        self._request = request
        self._method = method
        self._target = target
        self._headers = headers
        self._body = body
        self._length = length
        self._writer = Writer(request, replies.V1_JSON)
        self._used = False

    async def run(self, want: Want) -> web.StreamResponse:
        return await deliver(
            self._request,
            want,
            self._writer,
            self._attempt,
            whole=None,
            last_words=_last_words,
            is_spent=lambda: self._used,
        )

    async def _attempt(self, lease: Lease) -> None:
        upload = self._upload()
        async with open_exchange(
            lease.endpoint, self._method, self._target, tuple(self._headers), upload, self._length
        ) as exchange:
            told = [(name, value) for name, value in exchange.headers if name not in _NOT_TOLD]
            self._writer.head(exchange.status, told)
            async for data in exchange:
                await self._writer.write(data)

    def _upload(self) -> bytes | AsyncIterable[bytes]:
        if isinstance(self._body, bytes):
            return self._body
        self._used = True
        return self._body


def _last_words(told: Told) -> bytes:
    return openai.stream_error(told.message, told.status)


async def _only(services: Services) -> ModelCard:
    ready = [child.model for child in services.children.status() if child.state == "ready"]
    loaded = {card.name: card for card in services.visible(ready)}
    if len(loaded) != 1:
        raise DialectError(
            400,
            f"model is required, in the body or as ?model=: {len(loaded)} models are loaded",
            param="model",
        )
    [card] = loaded.values()
    services.claim(card.name)
    return card


async def _split(services: Services, path: str) -> tuple[ModelCard, str]:
    """The model that a path starts with, whose name may have slashes of its own, and the rest of the path."""
    segments = path.split("/")
    refusal: OutOfScopeError | None = None
    for count in range(min(len(segments), 5), 0, -1):
        name = unquote("/".join(segments[:count]))
        try:
            return await services.resolve(name), "/".join(segments[count:])
        except OutOfScopeError as error:
            refusal = error
        except (NotFoundError, InvalidNameError):
            refusal = None
    raise refusal or NotFoundError(
        f"model '{unquote(segments[0])}' not found", "`llamamgr list` shows what there is"
    )
