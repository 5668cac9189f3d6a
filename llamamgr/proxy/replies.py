"""Answers and their exact headers; every failure as the body that its path's dialect has for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
from aiohttp import web

from llamamgr.core.errors import BusyError, LlamamgrError, NotFoundError, UsageError
from llamamgr.proxy.relay import GenerationFailedError
from llamamgr.wire import ollama, openai
from llamamgr.wire.errors import DialectError

log = logging.getLogger(__name__)

NATIVE_JSON = "application/json; charset=utf-8"
V1_JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"


class Told(msgspec.Struct, frozen=True):
    """A failure as a client is told it; ``retry_after`` is seconds, 0 for none."""

    status: int
    message: str
    retry_after: int = 0


INTERNAL = Told(500, "internal error: the daemon's log has the details")


def tell(request: web.Request, error: Exception, *, hints: bool = False) -> Told:
    """What to tell of ``error``. What is no fault of the client is logged, without a word of what was asked.

    Of a client's own mistakes only the plain sentence is told unless ``hints``: clients match on those texts.
    """
    told = _foreseen(error, hints)
    if told is None:
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return INTERNAL
    if told.status >= 500:
        log.warning("%s %s: %d, %s", request.method, request.path, told.status, told.message)
    return told


def _foreseen(error: Exception, hints: bool) -> Told | None:
    if isinstance(error, DialectError):
        return Told(error.status, error.message)
    if isinstance(error, GenerationFailedError):
        return Told(error.failed.status, error.failed.message)
    if isinstance(error, LlamamgrError):
        plain = isinstance(error, UsageError | NotFoundError) and not hints
        retry_after = error.retry_after if isinstance(error, BusyError) else 0
        return Told(error.status, error.what if plain else str(error), retry_after)
    return None


def speaks_openai(request: web.Request) -> bool:
    return request.path.startswith("/v1/")


def refusal(request: web.Request, status: int, message: str, retry_after: int = 0) -> web.Response:
    """An error in the dialect of the request's path."""
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    if speaks_openai(request):
        return _response(status, openai.error_body(status, message), V1_JSON, headers)
    return _response(status, ollama.error_body(message), NATIVE_JSON, headers)


def plain(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    """Text as the router of Ollama sends it, without a charset."""
    return _response(status, body, "text/plain", headers or {})


def native(body: bytes, status: int = 200) -> web.Response:
    return _response(status, body, NATIVE_JSON, {})


def v1(body: bytes, status: int = 200) -> web.Response:
    return _response(status, body, V1_JSON, {})


def _response(status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=body, headers={"Content-Type": content_type, **headers})
