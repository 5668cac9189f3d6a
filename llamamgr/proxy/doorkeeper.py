"""Who may ask: Host and Origin, how many at once, and API keys.

Origin and Host are checked as Ollama does: an Origin that is not local is refused, and on a loopback
address so is a Host that is neither local nor an address, which stops DNS rebinding. Both refusals are 403 without a body.

A key is taken from ``Authorization: Bearer``, ``x-api-key`` or ``api-key``. Where one is needed, only ``/`` and ``/health`` are
answered without. Where none is, one that is not known counts as none, since clients send dummies; one that is known holds its
owner to its limits. All of this is decided before a body is read; which model it is about, the handlers know (``Services``).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable

import msgspec
from aiohttp import web

from llamamgr.core.config import ServerConfig
from llamamgr.core.errors import BusyError
from llamamgr.core.keys import Key
from llamamgr.proxy.keyring import Keyring
from llamamgr.proxy.visit import Visit
from llamamgr.wire.errors import DialectError

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
_FREE = frozenset({"/", "/health"})
_SOON = 1  # seconds after which another request may have ended
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]+(?:[ \t]*,[ \t]*[A-Za-z0-9_-]+)*\Z")
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
    """Decides who may ask, from the settings of now and the API keys. ``within`` counts the requests in flight.

    The address is that of the start: what is listened on does not move, whatever a new configuration says.
    """

    def __init__(
        self, settings: Callable[[], ServerConfig], hostname: str, keyring: Keyring | None = None
    ) -> None:
        self.keyring = keyring if keyring is not None else Keyring()
        self.within = 0
        self._settings = settings
        self._hostname = hostname.lower()
        self._host = settings().host
        self._check_host = not settings().is_open_to_network
        self.allows_host = functools.lru_cache(maxsize=256)(self._judge_host)  # clients have few spellings
        self._take(settings())

    def _take(self, server: ServerConfig) -> None:
        self._taken = server
        here = msgspec.structs.replace(server, host=self._host)
        self.needs_key = here.needs_key
        self.most = server.max_requests
        patterns = [*LOCAL_ORIGINS, *server.origins]
        self._any_origin = "*" in patterns
        self._origins = re.compile(
            "|".join(re.escape(p).replace(r"\*", ".*") for p in patterns), re.IGNORECASE
        )

    def allows_origin(self, origin: str, host: str) -> bool:
        """True for an origin that is local, configured, or this very server."""
        return _is_itself(origin, host) or self._any_origin or self._origins.fullmatch(origin) is not None

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

    def will_refuse(self, request: web.Request) -> bool:
        """True for a request that is not let in, whatever its body; told by its head alone, and counted by nobody."""
        if request.path in _FREE:
            return False
        if self.turned_away(request) is not None:
            return True
        try:
            if self.needs_key or not self.keyring.is_empty:
                self.key_of(request)
        except DialectError:
            return True
        return False

    def turned_away(self, request: web.Request) -> web.Response | None:
        """The whole answer to strangers and to preflights; None for whoever may come in. Asked first, by what is configured now."""
        if (server := self._settings()) is not self._taken:
            self._take(server)
        headers = request.headers
        host, origin = headers.get("Host", ""), headers.get("Origin", "")
        if origin and not self.allows_origin(origin, host):
            return web.Response(status=403)
        if origin and request.method == "OPTIONS" and not _is_itself(origin, host):
            return web.Response(status=204, headers=_PREFLIGHT | _asked(request) | _allow(request))
        if not self.allows_host(host):
            return web.Response(status=403)
        if request.method == "OPTIONS" and self._check_host and _address(_host_of(host)) is None:
            return web.Response(
                status=204, headers=_allow(request)
            )  # so does Ollama, where it is asked by a name
        return None

    def enter(self, request: web.Request, visit: Visit) -> bool:
        """Count a request in, and its key; False for one that whoever connects may ask, however busy it is.

        What was counted in must ``leave``. ``BusyError`` when there are too many already, ``DialectError`` as ``key_of``, and 429
        for one too many of a key.
        """
        if request.path in _FREE:
            return False
        if self.within >= self.most:
            raise BusyError(f"server busy: {self.most} requests are in flight", "", _SOON)
        if self.needs_key or not self.keyring.is_empty:
            visit.key = key = self.key_of(request)
            if key is not None:
                self.keyring.enter(key)
        self.within += 1
        return True

    def leave(self, visit: Visit) -> None:
        """A request that was counted in is over."""
        self.within -= 1
        if visit.key is not None:
            self.keyring.leave(visit.key)

    def may_read(self, request: web.Request, origin: str, status: int) -> bool:
        """True when a page of ``origin`` has to be told that it may see the answer; who was turned away may not see even that."""
        host = request.headers.get("Host", "")
        return not _is_itself(origin, host) and (status != 403 or self.allows_origin(origin, host))

    def allow_origin_header(self, origin: str) -> str:
        return "*" if self._any_origin else origin


_NO_KEY = "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
_UNKNOWN_KEY = "this API key is not known"


def _is_itself(origin: str, host: str) -> bool:
    """Whether a page comes from this very server, so that its browser asks nobody's leave."""
    return origin in (f"http://{host}", f"https://{host}")


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


def _asked(request: web.Request) -> dict[str, str]:
    """The headers that a page wants to send, all allowed: clients have ever new ones, and its origin may ask anything."""
    names = request.headers.get("Access-Control-Request-Headers", "")
    if not _HEADER_NAMES.match(names):
        return {}
    return {"Access-Control-Allow-Headers": f"{_PREFLIGHT['Access-Control-Allow-Headers']},{names}"}


def _allow(request: web.Request) -> dict[str, str]:
    """The ``Allow`` header of a path that exists but not with this method."""
    problem = request.match_info.http_exception
    return {"Allow": methods(problem)} if isinstance(problem, web.HTTPMethodNotAllowed) else {}


def methods(problem: web.HTTPMethodNotAllowed) -> str:
    """The ``Allow`` header of what went wrong by its method."""
    return ", ".join(sorted(problem.allowed_methods, key=_METHOD_ORDER.index))
