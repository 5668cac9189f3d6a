"""Answers and their exact headers; every failure as the body that its path's dialect has for it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec
from aiohttp import web

from llamamgr.core.errors import BusyError, ConfigError, LlamamgrError, NotFoundError, UsageError
from llamamgr.proxy.answer import EVENTS as EVENTS
from llamamgr.proxy.answer import V1_JSON as V1_JSON
from llamamgr.proxy.answer import Answer
from llamamgr.proxy.relay import GenerationFailedError
from llamamgr.wire import anthropic, ollama, openai
from llamamgr.wire.errors import DialectError

log = logging.getLogger(__name__)

NATIVE_JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"

Dialect: TypeAlias = Literal["ollama", "openai", "anthropic"]
# what is neither under /v1/ nor under /api/ and yet answers as OpenAI and llama-server do
_ENGINE_PATHS = frozenset(
    {
        *(
            "/rerank",
            "/v2/rerank",
            "/props",
            "/slots",
            "/metrics",
            "/tokenize",
            "/detokenize",
            "/apply-template",
        ),
        *("/infill", "/completion", "/lora-adapters"),
    }
)


class Told(msgspec.Struct, frozen=True):
    """A failure as a client is told it; ``retry_after`` is seconds, 0 for none, ``param`` and ``code`` as in ``DialectError``."""

    status: int
    message: str
    retry_after: int = 0
    param: str | None = None
    code: str | None = None


# clients refuse an answer with longer headers
_MOST_LEFT_OUT, _LONGEST_HEADER = 50, 2000
# the engine's word for what went wrong → OpenAI's
_CODES = {"exceed_context_size_error": "context_length_exceeded"}
INTERNAL = Told(500, "internal error: the daemon's log has the details")


def tell(request: web.Request, error: Exception, *, hints: bool = False) -> Told:
    """What to tell of ``error``. What is no fault of the client is logged, without a word of what was asked.

    Of a client's own mistakes only the plain sentence is told unless ``hints``: clients match on those texts.
    """
    told = _foreseen(error, hints)
    if told is None:
        log.error("%s %s failed", request.method, _path(request), exc_info=error)
        return INTERNAL
    if told.status >= 500:
        log.warning("%s %s: %d, %s", request.method, _path(request), told.status, told.message)
    return told


def _path(request: web.Request) -> str:
    """As it was sent, so that an escaped line end cannot write a log line of its own."""
    return request.rel_url.raw_path


def _foreseen(error: Exception, hints: bool) -> Told | None:
    if isinstance(error, DialectError):
        return Told(error.status, error.message, error.retry_after, error.param, error.code)
    if isinstance(error, GenerationFailedError):
        failed = error.failed
        code = failed.code or _CODES.get(failed.type)
        return Told(failed.status, failed.message, param=failed.param, code=code)
    if isinstance(error, LlamamgrError):
        is_clients = isinstance(error, UsageError | NotFoundError) and not isinstance(error, ConfigError)
        retry_after = error.retry_after if isinstance(error, BusyError) else 0
        code = "model_not_found" if isinstance(error, NotFoundError) else None
        text = error.what if is_clients and not hints else str(error)
        return Told(error.status, text, retry_after, code=code)
    return None


def dialect_of(request: web.Request) -> Dialect:
    """The dialect that a request's path, and for the list of models its headers, speak."""
    path = request.path
    if path.startswith("/v1/models") and "anthropic-version" in request.headers:
        return "anthropic"
    return dialect_of_path(path)


def dialect_of_path(path: str) -> Dialect:
    """The dialect of a path, or of a route's pattern."""
    if path.startswith("/v1/"):
        return "anthropic" if path.startswith("/v1/messages") else "openai"
    return "openai" if path in _ENGINE_PATHS or path.startswith("/upstream/") else "ollama"


def refusal(request: web.Request, told: Told) -> web.Response:
    """An error in the dialect of the request. Clients of OpenAI and Anthropic are told not to try again what a key may not ask."""
    dialect = dialect_of(request)
    headers = {"Retry-After": str(told.retry_after)} if told.retry_after else {}
    if told.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if told.status in (401, 403) and dialect != "ollama":
        headers["x-should-retry"] = "false"
    return _refusal(dialect, told, headers)


def _refusal(dialect: Dialect, told: Told, headers: dict[str, str]) -> web.Response:
    match dialect:
        case "anthropic":
            id = _anthropic_id()  # noqa: A001 - the field's name
            body = anthropic.error_body(told.status, told.message, id)
            return v1(body, told.status, headers | anthropic_headers(id))
        case "openai":
            body = openai.error_body(told.status, told.message, told.param, told.code)
            return v1(body, told.status, headers)
        case "ollama":
            return Answer(ollama.error_body(told.message), NATIVE_JSON, told.status, headers)


def not_served(
    request: web.Request, status: int, plain_text: bytes, headers: Mapping[str, str] | None = None
) -> web.Response:
    """What there is no route for: in Ollama's words, and below ``/v1`` as an error for clients of OpenAI and Anthropic."""
    if not f"{request.path}/".startswith("/v1/"):
        return plain(status, plain_text, headers)
    what = f"{request.method} {request.path}"
    message = f"Invalid URL ({what}): it is not served here; /openapi.json lists what is"
    is_anthropics = "anthropic-version" in request.headers or dialect_of(request) == "anthropic"
    told = Told(status, message, code="unknown_url" if status == 404 else "method_not_supported")
    return _refusal("anthropic" if is_anthropics else "openai", told, dict(headers or {}))


def error_body(path: str, status: int, message: str) -> tuple[bytes, str]:
    """The body of an error where there is no request to answer, and its content type; ``path`` is "" when that is not known."""
    match dialect_of_path(path):
        case "anthropic":
            return anthropic.error_body(status, message, _anthropic_id()), V1_JSON
        case "openai":
            return openai.error_body(status, message), V1_JSON
        case "ollama":
            return ollama.error_body(message), NATIVE_JSON


def anthropic_headers(id: str = "") -> dict[str, str]:  # noqa: A002 - the field's name
    """What every answer to an Anthropic client has; a fresh id unless one is given."""
    return {"request-id": id or _anthropic_id()}


def _anthropic_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def left_out(tools: Sequence[str]) -> dict[str, str]:
    """Tells, in a header, which tools a model was not offered: only the original API's servers can run them."""
    told = [name for name in dict.fromkeys(tools) if name.isascii() and name.isprintable()]
    names = ", ".join(told[:_MOST_LEFT_OUT])[:_LONGEST_HEADER]
    return {"X-Left-Out-Tools": names} if names else {}


def plain(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    """Text as the router of Ollama sends it, without a charset."""
    return Answer(body, "text/plain", status, headers)


def native(body: bytes, status: int = 200) -> web.Response:
    return Answer(body, NATIVE_JSON, status)


def v1(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return Answer(body, V1_JSON, status, headers)
