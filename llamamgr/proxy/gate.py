"""The one middleware: request ids, whom ``doorkeeper`` lets in, what is counted, and failures turned into answers.

Every request passes here, so it is one coroutine and makes no object that it can do without.
"""

from __future__ import annotations

import asyncio
import html
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware

from llamamgr.core.errors import EXIT_CODE, LlamamgrError
from llamamgr.proxy import replies
from llamamgr.proxy.answer import SERVER
from llamamgr.proxy.doorkeeper import Doorkeeper, methods
from llamamgr.proxy.metrics import CLIENT_LEFT
from llamamgr.proxy.services import Services
from llamamgr.proxy.visit import Visit, begin, visiting

_KEEPER = web.AppKey("keeper", Doorkeeper)
access = logging.getLogger("llamamgr.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
# what clients read besides the body: ids to report a failure by, when and whether to try again, what was left out
_EXPOSED = "Request-Id,Openai-Processing-Ms,X-Request-Id,Retry-After,X-Should-Retry,X-Left-Out-Tools"
_IDS = random.Random()  # noqa: S311 - a request id is no secret, and the system's own source costs a call to it


def guard(app: web.Application, services: Services) -> None:
    """Let in whom a doorkeeper lets in, and write the access log where it is wanted."""
    keeper = Doorkeeper(lambda: services.config.server, services.hostname, services.keyring)
    app[_KEEPER] = keeper
    app.middlewares.append(_gate(services, keeper))
    app.on_response_prepare.append(_head_of(keeper))


async def welcome(request: web.Request) -> None:
    """``100 Continue`` for a client that waits for it with its body; not where it will be refused before that is read."""
    keeper = request.app.get(_KEEPER)
    if request.version < HttpVersion11 or (keeper is not None and keeper.will_refuse(request)):
        return
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="of what a request may expect only 100-continue is known")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # nothing of the answer has been said


def attend(app: web.Application, services: Services) -> None:
    """The same where only this user comes: all are let in, and are told hints of their own mistakes too, and exit codes."""
    app.middlewares.append(_gate(services, None))
    app.on_response_prepare.append(_head_of(None))


def _gate(services: Services, keeper: Doorkeeper | None) -> Middleware:
    metrics = services.metrics

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = metrics.of(request)
        visit = begin(Visit(_id_of(request), route, time.perf_counter()))
        route.in_flight += 1
        status, counted = CLIENT_LEFT, False
        try:
            turned_away = keeper.turned_away(request) if keeper is not None else None
            if turned_away is None and keeper is not None:
                counted = keeper.enter(request, visit)
            response = turned_away or await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            raise  # the client left, perhaps while it was being answered
        except Exception as error:
            response = _failure(request, error, hints=keeper is None)
            status = response.status
        else:
            status = response.status
        finally:
            if counted and keeper is not None:
                keeper.leave(visit)
            route.in_flight -= 1
            route.statuses[status] += 1
            wanted = keeper is not None and services.config.server.access_log
            level = logging.INFO if wanted else logging.DEBUG
            if access.isEnabledFor(level):
                _note(level, request, visit, status)
            visit.is_over = True
        return response

    return gate


def _failure(request: web.Request, error: Exception, *, hints: bool) -> web.Response:
    """A failure as an answer in the dialect of its path; ``hints`` shows hints of client errors too, and exit codes."""
    match error:
        case web.HTTPMethodNotAllowed():
            return replies.not_served(request, 405, b"405 method not allowed", {"Allow": methods(error)})
        case web.HTTPNotFound():
            return _moved(request) or replies.not_served(request, 404, b"404 page not found")
        case web.HTTPException():
            return replies.refusal(request, replies.Told(error.status, error.text or error.reason))
        case web.RequestPayloadError():
            refused = replies.refusal(request, replies.Told(400, "the body cannot be unpacked"))
            refused.force_close()  # nobody knows where it ends
            return refused
    refused = replies.refusal(request, replies.tell(request, error, hints=hints))
    if hints and isinstance(error, LlamamgrError):
        refused.headers[EXIT_CODE] = str(error.exit_code)
    return refused


def _moved(request: web.Request) -> web.Response | None:
    """For a path with slashes or dots too many, where to find what was meant, as Ollama's two routers tell it.

    Go's (net/http, ``ServeMux``) cleans a path whatever is there, and gin takes a slash off its end where that leads somewhere.
    """
    path, mark, query = request.raw_path.partition("?")
    if path.startswith("/") and (cleaned := _cleaned(path)) != path:
        return _redirect(request, 307, cleaned + mark + query)
    target = request.rel_url.with_path(request.path.rstrip("/"), keep_query=True)
    if request.path[-1:] != "/" or not _has_route(request.app, request.method, target.path):
        return None
    return _redirect(request, 301 if request.method == "GET" else 307, str(target))


def _cleaned(path: str) -> str:
    """Without empty parts, ``.`` and ``..``; a slash at the end stays."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    whole = "/" + "/".join(parts)
    return f"{whole}/" if parts and path.endswith("/") else whole


def _redirect(request: web.Request, status: int, target: str) -> web.Response:
    target = target.replace("\\", "%5C")  # browsers take it for a slash
    if request.method != "GET":
        return web.Response(status=status, headers={"Location": target})
    words = "Moved Permanently" if status == 301 else "Temporary Redirect"
    link = f'<a href="{html.escape(target)}">{words}</a>.\n\n'
    headers = {"Location": target, "Content-Type": "text/html; charset=utf-8"}
    return web.Response(status=status, body=link.encode(), headers=headers)


def _has_route(app: web.Application, method: str, path: str) -> bool:
    return any(
        route.method == method and route.resource is not None and route.resource.canonical == path
        for route in app.router.routes()
    )


def _note(level: int, request: web.Request, visit: Visit, status: int) -> None:
    """One line of the access log: no header, no query, no word of what was asked."""
    access.log(
        level,
        "%s %s %d %.1f ms key=%s model=%s",
        request.method,
        request.rel_url.raw_path,
        status,
        (time.perf_counter() - visit.began) * 1000,
        visit.key.name if visit.key else "-",
        visit.model or "-",
    )


def _id_of(request: web.Request) -> str:
    given = request.headers.get("X-Request-Id")
    return given if given and _REQUEST_ID.match(given) else f"{_IDS.getrandbits(64):016x}"


def _head_of(
    keeper: Doorkeeper | None,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def complete_head(request: web.Request, response: web.StreamResponse) -> None:
        """Signal before any head is sent: request id, server name, and the origin that may read the answer."""
        headers = response.headers
        headers["Server"] = SERVER
        visit = visiting()  # none where aiohttp refuses before any handler
        if visit is None:
            headers["X-Request-Id"] = _id_of(request)
        else:
            headers["X-Request-Id"] = visit.id
            taken = visit.note_first_byte()
            if replies.dialect_of(request) == "openai":
                headers["openai-processing-ms"] = str(taken)
        origin = request.headers.get("Origin")
        if origin and keeper is not None and keeper.may_read(request, origin, response.status):
            headers["Access-Control-Allow-Origin"] = keeper.allow_origin_header(origin)
            headers["Access-Control-Expose-Headers"] = _EXPOSED
            headers["Vary"] = "Origin"

    return complete_head
