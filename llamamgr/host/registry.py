"""HTTP to registries and hubs: small answers whole, large ones in pieces, and what stands between a question and an answer.

Redirects are followed by hand, so that credentials never reach another host and https never becomes http; a 401 that names a
token service is answered with its token (source: the Docker registry's token authentication); 429 and 5xx are tried again after
a while. aiohttp does it, which the daemon has loaded anyway; a command that lists or shows never imports this module's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec

from llamamgr.core.errors import (
    BusyError,
    LlamamgrError,
    NotFoundError,
    PermissionDeniedError,
    SourceUnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    import aiohttp

_SILENCE = 30.0  # seconds without a byte after which a connection is taken for dead
_CONNECT = 15.0
_REDIRECTS = 10
_TRIES = 4
_LONGEST_WAIT = 20.0  # seconds that a server may ask to be left alone for; beyond that the caller is told
_SMALL = 1024 * 1024
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_REDIRECTING = (301, 302, 303, 307, 308)


class CutError(Exception):
    """The connection ended before the body did, or fell silent; what came is good, and the rest can be asked for."""


class Piece(msgspec.Struct, frozen=True):
    """Bytes of a body that belong at ``offset`` of the whole."""

    offset: int
    data: bytes


class Registry:
    """A client; use it as an async context manager. ``tokens`` are host → bearer token, sent to that host only."""

    def __init__(self, version: str = "", tokens: Mapping[str, str] | None = None) -> None:
        self._agent = f"llamamgr/{version}" if version else "llamamgr"
        self._tokens = dict(tokens or {})
        self._stack = contextlib.AsyncExitStack()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Registry:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
        session = aiohttp.ClientSession(
            timeout=timeout, trust_env=True, auto_decompress=True, headers={"User-Agent": self._agent}
        )
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *details: object) -> None:
        await self._stack.aclose()

    async def read(self, url: str, limit: int, accept: str = "*/*") -> bytes:
        """A whole body of at most ``limit`` bytes. Raises as ``stream``, and ``SourceUnreachableError`` when it was cut."""
        body = b""
        try:
            async with contextlib.aclosing(self.stream(url, accept=accept)) as pieces:
                async for piece in pieces:
                    body += piece.data
                    if len(body) > limit:
                        raise UsageError(f"{url} sent more than {limit:,} bytes", "is that a registry?")
        except CutError as error:
            raise SourceUnreachableError(f"{_host(url)}: {error}", "try again") from None
        return body

    async def stream(self, url: str, start: int = 0, accept: str = "*/*") -> AsyncGenerator[Piece, None]:
        """A body from byte ``start`` on; from 0 when the server cannot do otherwise. ``CutError`` when it ends too soon.

        ``NotFoundError`` for 404, ``PermissionDeniedError`` for 401 and 403, ``BusyError`` for 429, ``SourceUnreachableError`` when
        nobody answers or the server is at fault, ``UsageError`` for any other refusal.
        """
        import aiohttp

        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        async with contextlib.AsyncExitStack() as held:
            response = await self._answer(url, headers, held)
            offset = _offset(response, start)
            expected = response.content_length
            received = 0
            try:
                async for data in response.content.iter_any():
                    yield Piece(offset + received, data)
                    received += len(data)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise CutError(_said(error)) from None
            if expected is not None and received < expected:
                raise CutError(f"{received:,} of {expected:,} bytes came")

    async def _answer(
        self, url: str, headers: dict[str, str], held: contextlib.AsyncExitStack
    ) -> aiohttp.ClientResponse:
        """The good answer to a question, asked again where that may help."""
        asked_token = False
        for attempt in range(1, _TRIES + 1):
            response = await self._follow(url, headers, held)
            if response.status in (200, 206):
                return response
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status == 401 and not asked_token and challenge.lower().startswith("bearer "):
                asked_token = True
                await self._fetch_token(url, challenge)
                continue
            is_passing = response.status == 429 or response.status >= 500
            wait = _wait(response, attempt)
            if not is_passing or attempt == _TRIES or wait > _LONGEST_WAIT:
                raise await _refusal(url, response, wait)
            response.release()
            await asyncio.sleep(wait)
        raise SourceUnreachableError(f"{_host(url)} keeps refusing", "try again later")

    async def _follow(
        self, url: str, headers: dict[str, str], held: contextlib.AsyncExitStack
    ) -> aiohttp.ClientResponse:
        """The first answer that is no redirect. Tokens go to the host they are for."""
        import aiohttp
        from yarl import URL

        assert self._session is not None, "use it as a context manager"
        for _ in range(_REDIRECTS):
            token = self._tokens.get(_host(url))
            sent = {**headers, "Authorization": f"Bearer {token}"} if token else headers
            try:
                # signed addresses must stay as they are, to the last escape
                request = self._session.get(URL(url, encoded=True), headers=sent, allow_redirects=False)
                response = await held.enter_async_context(request)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                raise SourceUnreachableError(
                    f"{_host(url)} cannot be reached: {_said(error)}",
                    "check the network, or the name of the host",
                ) from None
            if response.status not in _REDIRECTING:
                return response
            target = urljoin(url, response.headers.get("Location", ""))
            response.release()
            if (
                urlsplit(target).scheme not in ("https", urlsplit(url).scheme)
                or not urlsplit(target).hostname
            ):
                raise PermissionDeniedError(
                    f"{_host(url)} redirects from https to {target[:200]}", "its answer is not trusted"
                )
            url = target
        raise SourceUnreachableError(f"{_host(url)} redirects for ever", "try again later")

    async def _fetch_token(self, url: str, challenge: str) -> None:
        """Ask the service that a 401 names for a token that this very host will take."""
        said = dict(_CHALLENGE.findall(challenge))
        realm = said.pop("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("https", urlsplit(url).scheme) or not parts.hostname:
            return
        query = urlencode({key: value for key, value in said.items() if key in ("service", "scope")})
        async with contextlib.AsyncExitStack() as held:
            response = await self._follow(f"{realm}{'&' if parts.query else '?'}{query}", {}, held)
            if response.status != 200:
                raise await _refusal(realm, response, 0)
            body = await response.content.read(_SMALL)
        try:
            answer = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = {}
        token = answer.get("token") or answer.get("access_token")
        if isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]{1,16384}", token):
            self._tokens[_host(url)] = token


def _host(url: str) -> str:
    """Host and port: what a token is for, and what people are told."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def _offset(response: aiohttp.ClientResponse, start: int) -> int:
    if response.status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else start


def _wait(response: aiohttp.ClientResponse, attempt: int) -> float:
    """Seconds until the next try: what the server asks for, else a little longer each time."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else min(0.25 * 4 ** (attempt - 1), _LONGEST_WAIT)


async def _refusal(url: str, response: aiohttp.ClientResponse, wait: float) -> LlamamgrError:
    import aiohttp

    host, status = _host(url), response.status
    try:
        body = await response.content.read(2000)
    except (aiohttp.ClientError, OSError, TimeoutError):
        body = b""
    said = f": {text}" if (text := _message(body)) else ""
    if status == 404:
        return NotFoundError("file does not exist", f"{host} has no {urlsplit(url).path}")
    if status in (401, 403):
        return PermissionDeniedError(
            f"{host} wants to know who asks ({status}){said}",
            "set HF_TOKEN to a token of yours, and accept the model's terms on its page",
        )
    if status == 429:
        return BusyError(f"{host} gets too many requests (429){said}", "try again later", max(1, int(wait)))
    if status >= 500:
        return SourceUnreachableError(f"{host} failed ({status}){said}", "try again later")
    return UsageError(f"{host} refused ({status}){said}", "is the name right?")


def _message(body: bytes) -> str:
    """One line of what a server says about its refusal; nothing of a page of HTML."""
    try:
        data: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    if isinstance(data, dict):
        errors = data.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else data.get("error") or data.get("message")
        first = first.get("message") if isinstance(first, dict) else first
        return " ".join(str(first).split())[:300] if first else ""
    return ""


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    error = getattr(
        error, "os_error", error
    )  # what the system says, without the client's own words around it
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
