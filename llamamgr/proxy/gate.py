"""What stands before every handler: who may ask, how many at once, request ids, and errors turned into answers.

Origin and Host are checked as Ollama does: an Origin that is not local is refused, and on a loopback
address so is a Host that is neither local nor an address, which stops DNS rebinding. Both refusals are 403 without a body.

A key is taken from ``Authorization: Bearer``, ``x-api-key`` or ``api-key``. Where one is needed, only ``/`` and ``/health`` are
answered without. Where none is, one that is not known counts as none, since clients send dummies; one that is known holds its
owner to its limits. All of this is decided before a body is read; which model it is about, the handlers know (``Services``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import random
import re
import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from llamamgr.core.config import Config
from llamamgr.core.errors import BusyError
from llamamgr.core.keys import Key
from llamamgr.proxy import replies
from llamamgr.proxy.keyring import Keyring
from llamamgr.proxy.services import SERVICES
from llamamgr.proxy.visit import Visit, begun, current, visiting
from llamamgr.wire.errors import DialectError

access = logging.getLogger("llamamgr.access")

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - names a browser may have used, nothing is bound to them
LOCAL_ORIGINS = (
    *(
        f"{scheme}://{host}{port}"
        for host in _LOCAL_HOSTS
        for scheme in ("http", "https")
        for port in ("", ":*")
    ),
    *(f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
)
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_FREE = frozenset({"/", "/health"})  # what whoever connects may ask, however busy it is
_SOON = 1  # seconds after which another request may have ended
_CLIENT_LEFT = 499  # a status for the log alone
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]+(?:[ \t]*,[ \t]*[A-Za-z0-9_-]+)*\Z")
# what clients read besides the body: ids to report a failure by, when to try again, what was left out
_EXPOSED = "Request-Id,X-Request-Id,Retry-After,X-Left-Out-Tools"
_IDS = random.Random()  # noqa: S311 - a request id is no secret, and the system's own source costs a call to it
_METHOD_ORDER = ("HEAD", "GET", "POST", "PUT", "DELETE")
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "Access-Control-Allow-Headers": (
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
        "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
        "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
        "X-Stainless-Runtime-Version,X-Stainless-Timeout,X-Api-Key,Api-Key,Anthropic-Version,Anthropic-Beta,"
        "Anthropic-Dangerous-Direct-Browser-Access"
    ),
    "Access-Control-Max-Age": "43200",
}


class Doorkeeper:
    """Decides who may ask, from a configuration and the API keys. ``within`` counts the requests in flight."""

    def __init__(self, config: Config, hostname: str, keyring: Keyring | None = None) -> None:
        self.keyring = keyring if keyring is not None else Keyring()
        self.needs_key = config.server.needs_key
        self.most = config.server.max_requests
        self.within = 0
        patterns = [*LOCAL_ORIGINS, *config.server.origins]
        self._any_origin = "*" in patterns
        self._origins = re.compile(
            "|".join(re.escape(p).replace(r"\*", ".*") for p in patterns), re.IGNORECASE
        )
        self._hostname = hostname.lower()
        self._check_host = not config.server.is_open_to_network
        self.allows_host = functools.lru_cache(maxsize=256)(self._judge_host)  # clients have few spellings

    def allows_origin(self, origin: str, host: str) -> bool:
        """True for an origin that is local, configured, or this very server."""
        same = origin in (f"http://{host}", f"https://{host}")
        return same or self._any_origin or self._origins.fullmatch(origin) is not None

    def _judge_host(self, header: str) -> bool:
        """True for a Host header that may reach a server on this machine."""
        if not self._check_host:
            return True
        host = _host_of(header).lower()
        address = _address(host)
        if address is not None:
            return address.is_loopback or address.is_private or address.is_unspecified
        return host in ("", "localhost", self._hostname) or host.endswith(_LOCAL_SUFFIXES)

    def key_of(self, request: web.Request) -> Key | None:
        """Whose key a request came with, None for nobody's; ``DialectError`` 401 or 403 when it may not ask this."""
        presented = _secrets(request)
        key = self.keyring.owner(presented)
        if key is None:
            if self.needs_key:
                raise DialectError(401, _UNKNOWN_KEY if presented else _NO_KEY, code="invalid_api_key")
            return None
        if self.keyring.has_expired(key):
            raise DialectError(401, f"the API key {key.name!r} has expired", code="invalid_api_key")
        if not key.may_reach(_route(request), request.path):
            message = f"the API key {key.name!r} is not for {request.method} {request.path}"
            raise DialectError(403, message, code="endpoint_not_allowed")
        return key

    def allow_origin_header(self, origin: str) -> str:
        return "*" if self._any_origin else origin


_NO_KEY = "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
_UNKNOWN_KEY = "this API key is not known"


def _secrets(request: web.Request) -> list[str]:
    """What may be a key in a request's headers."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = [bearer if scheme.lower() == "bearer" else ""]
    given += [request.headers.get(name, "") for name in ("X-Api-Key", "Api-Key")]
    return [secret.strip() for secret in given if secret.strip()]


def _route(request: web.Request) -> str:
    """The route that the router found, "" for none: what is allowed must be decided on what will be done."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host_of(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


DOORKEEPER = web.AppKey("doorkeeper", Doorkeeper)


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse strangers and crowds, answer preflights."""
    keeper = request.app[DOORKEEPER]
    origin = request.headers.get("Origin", "")
    if origin and not keeper.allows_origin(origin, request.headers.get("Host", "")):
        return web.Response(status=403)
    if origin and request.method == "OPTIONS":
        return web.Response(status=204, headers=_PREFLIGHT | _asked(request) | _allow(request))
    if not keeper.allows_host(request.headers.get("Host", "")):
        return web.Response(status=403)
    if request.path in _FREE:
        return await handler(request)
    keeper.within += 1
    try:
        if keeper.within > keeper.most:
            raise BusyError(f"server busy: {keeper.most} requests are in flight", "", _SOON)
        if keeper.keyring.is_empty and not keeper.needs_key:
            return await handler(request)
        key = current().key = keeper.key_of(request)
        with keeper.keyring.counted(key) if key is not None else contextlib.nullcontext():
            return await handler(request)
    finally:
        keeper.within -= 1


def _asked(request: web.Request) -> dict[str, str]:
    """The headers that a page wants to send, all allowed: clients have ever new ones, and its origin may ask anything."""
    names = request.headers.get("Access-Control-Request-Headers", "")
    if not _HEADER_NAMES.match(names):
        return {}
    return {"Access-Control-Allow-Headers": f"{_PREFLIGHT['Access-Control-Allow-Headers']},{names}"}


def _allow(request: web.Request) -> dict[str, str]:
    """The ``Allow`` header of a path that exists but not with this method."""
    problem = request.match_info.http_exception
    return {"Allow": _methods(problem)} if isinstance(problem, web.HTTPMethodNotAllowed) else {}


def _methods(problem: web.HTTPMethodNotAllowed) -> str:
    return ", ".join(sorted(problem.allowed_methods, key=_METHOD_ORDER.index))


def answering(*, hints: bool, noted: int = logging.DEBUG) -> Middleware:
    """Middleware that turns every failure into an answer in the dialect of its path; ``hints`` shows hints of client errors too.

    A line of the access log is written at level ``noted``.
    """

    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except asyncio.CancelledError:
            raise
        except web.HTTPMethodNotAllowed as problem:
            return replies.plain(405, b"405 method not allowed", {"Allow": _methods(problem)})
        except web.HTTPNotFound:
            return replies.plain(404, b"404 page not found")
        except web.HTTPException as problem:
            return replies.refusal(request, replies.Told(problem.status, problem.text or problem.reason))
        except web.RequestPayloadError:
            refused = replies.refusal(request, replies.Told(400, "the body cannot be unpacked"))
            refused.force_close()  # nobody knows where it ends
            return refused
        except ConnectionError:
            raise  # the client left while it was being answered
        except Exception as error:
            return replies.refusal(request, replies.tell(request, error, hints=hints))

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        with begun(Visit(_id_of(request))) as visit:
            if not access.isEnabledFor(noted):
                return _labelled(await answered(request, handler), visit)
            status, since = _CLIENT_LEFT, time.monotonic()
            try:
                response = await answered(request, handler)
                status = response.status
                return _labelled(response, visit)
            finally:
                _note(noted, request, visit, status, time.monotonic() - since)

    return answer


def _labelled(response: web.StreamResponse, visit: Visit) -> web.StreamResponse:
    if not response.prepared:
        response.headers["X-Request-Id"] = visit.id
    return response


def _note(level: int, request: web.Request, visit: Visit, status: int, seconds: float) -> None:
    """One line of the access log: no header, no query, no word of what was asked."""
    path, key = request.rel_url.raw_path, visit.key.name if visit.key else "-"
    access.log(
        level,
        "%s %s %d %.1f ms key=%s model=%s",
        request.method,
        path,
        status,
        seconds * 1000,
        key,
        visit.model or "-",
    )


def _id_of(request: web.Request) -> str:
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.match(given) else f"{_IDS.getrandbits(64):016x}"


async def complete_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal before any head is sent: request id, server name, and the origin that may read the answer."""
    headers = response.headers
    headers["Server"] = "llamamgr"
    if "X-Request-Id" not in headers:
        visit = visiting()  # none where aiohttp refuses before any handler
        headers["X-Request-Id"] = visit.id if visit is not None else _id_of(request)
    origin = request.headers.get("Origin", "")
    if origin and (response.status != 403 or _is_welcome(request, origin)):
        headers["Access-Control-Allow-Origin"] = request.app[DOORKEEPER].allow_origin_header(origin)
        headers["Access-Control-Expose-Headers"] = _EXPOSED
        headers["Vary"] = "Origin"


def _is_welcome(request: web.Request, origin: str) -> bool:
    return request.app[DOORKEEPER].allows_origin(origin, request.headers.get("Host", ""))


def guard(app: web.Application) -> None:
    """Put doorkeeper and header signal on ``app``, which holds ``SERVICES`` already."""
    services = app[SERVICES]
    app[DOORKEEPER] = Doorkeeper(services.config, services.hostname, services.keyring)
    app.on_response_prepare.append(complete_headers)
