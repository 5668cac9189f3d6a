"""What stands before every handler: who may ask, request ids, and errors turned into answers.

Origin and Host are checked as Ollama does (facts: Ollama §1.1): an Origin that is not local is refused, and on a loopback
address so is a Host that is neither local nor an address, which stops DNS rebinding. Both refusals are 403 without a body.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets

from aiohttp import http_exceptions, web
from aiohttp.typedefs import Handler, Middleware

from llamamgr.core.config import Config, parse_address
from llamamgr.proxy import replies
from llamamgr.proxy.services import SERVICES

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
_METHOD_ORDER = ("HEAD", "GET", "POST", "PUT", "DELETE")
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "Access-Control-Allow-Headers": (
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
        "X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
        "X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
        "X-Stainless-Runtime-Version,X-Stainless-Timeout"
    ),
    "Access-Control-Max-Age": "43200",
}


class Doorkeeper:
    """Decides who may ask, from a configuration."""

    def __init__(self, config: Config, hostname: str) -> None:
        patterns = [*LOCAL_ORIGINS, *config.server.origins]
        self._any_origin = "*" in patterns
        self._origins = re.compile(
            "|".join(re.escape(p).replace(r"\*", ".*") for p in patterns), re.IGNORECASE
        )
        self._hostname = hostname.lower()
        self._check_host = _is_loopback(parse_address(config.server.host).host)

    def allows_origin(self, origin: str, host: str) -> bool:
        """True for an origin that is local, configured, or this very server."""
        same = origin in (f"http://{host}", f"https://{host}")
        return same or self._any_origin or self._origins.fullmatch(origin) is not None

    def allows_host(self, header: str) -> bool:
        """True for a Host header that may reach a server on this machine."""
        if not self._check_host:
            return True
        host = _host_of(header).lower()
        address = _address(host)
        if address is not None:
            return address.is_loopback or address.is_private or address.is_unspecified
        return host in ("", "localhost", self._hostname) or host.endswith(_LOCAL_SUFFIXES)

    def allow_origin_header(self, origin: str) -> str:
        return "*" if self._any_origin else origin


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"


def _host_of(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


DOORKEEPER = web.AppKey("doorkeeper", Doorkeeper)


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse strangers, answer preflights."""
    keeper = request.app[DOORKEEPER]
    origin = request.headers.get("Origin", "")
    if origin and not keeper.allows_origin(origin, request.headers.get("Host", "")):
        return web.Response(status=403)
    if origin and request.method == "OPTIONS":
        return web.Response(status=204, headers=_PREFLIGHT | _allow(request))
    if not keeper.allows_host(request.headers.get("Host", "")):
        return web.Response(status=403)
    return await handler(request)


def _allow(request: web.Request) -> dict[str, str]:
    """The ``Allow`` header of a path that exists but not with this method."""
    problem = request.match_info.http_exception
    return {"Allow": _methods(problem)} if isinstance(problem, web.HTTPMethodNotAllowed) else {}


def _methods(problem: web.HTTPMethodNotAllowed) -> str:
    return ", ".join(sorted(problem.allowed_methods, key=_METHOD_ORDER.index))


def answering(*, hints: bool) -> Middleware:
    """Middleware that turns every failure into an answer in the dialect of its path; ``hints`` shows hints of client errors too."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
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
        except http_exceptions.ContentEncodingError as problem:
            return replies.refusal(request, replies.Told(400, problem.message))
        except ConnectionError:
            raise  # the client left while it was being answered
        except Exception as error:
            return replies.refusal(request, replies.tell(request, error, hints=hints))

    return answer


async def complete_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal before any head is sent: request id, server name, and the origin that may read the answer."""
    headers = response.headers
    headers["Server"] = "llamamgr"
    given = request.headers.get("X-Request-Id", "")
    headers["X-Request-Id"] = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
    origin = request.headers.get("Origin", "")
    if origin and response.status != 403:
        headers["Access-Control-Allow-Origin"] = request.app[DOORKEEPER].allow_origin_header(origin)
        headers["Vary"] = "Origin"


def guard(app: web.Application) -> None:
    """Put doorkeeper and header signal on ``app``, which holds ``SERVICES`` already."""
    services = app[SERVICES]
    app[DOORKEEPER] = Doorkeeper(services.config, services.hostname)
    app.on_response_prepare.append(complete_headers)
