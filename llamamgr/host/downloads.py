"""Documents and files over HTTP: with a deadline, through the usual proxies, resumed when the connection breaks, checked by digest.

Only http and https are spoken; a redirect never leads from https to http. Proxies are those of the environment.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from llamamgr.core.errors import NotFoundError, SourceUnreachableError
from llamamgr.core.version import VERSION
from llamamgr.host.files import disk_full_as_error

_SILENCE = 30.0  # seconds without a byte before a server counts as gone
_TRIES = 3
_PIECE = 1 << 18
_DOCUMENT = 32 * 1024 * 1024  # bytes; no index answers more
_TAKEN_UP = 206

OnBytes = Callable[[int, int], None]


class Wanted(msgspec.Struct, frozen=True):
    """A file to fetch: its ``size`` in bytes (0 = not told) and its ``sha256`` as 64 hex digits."""

    url: str
    size: int
    sha256: str


def fetch_json(url: str) -> Any:
    """The JSON document at ``url``; ``NotFoundError`` for 404, ``SourceUnreachableError`` for anything else but an answer."""
    try:
        with _opened(url, {"Accept": "application/json"}) as answer:
            return json.loads(answer.read(_DOCUMENT))
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, error) from None


def fetch_file(wanted: Wanted, to: Path, on_bytes: OnBytes = lambda done, total: None) -> None:
    """Put the file at ``to``, which appears by rename once its digest is right; a broken connection is taken up where it broke.

    ``NotFoundError`` for 404; ``SourceUnreachableError`` when the server fails again and again, or gives a file of another digest.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        with disk_full_as_error(to), partial.open("w+b") as file:
            _fill(wanted, file, on_bytes)
            found = _digest(file)
        if found != wanted.sha256:
            raise SourceUnreachableError(
                f"{wanted.url} is not what it should be: sha256 {found} instead of {wanted.sha256}",
                "try again; if it stays so, do not trust that server",
            )
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)


def _fill(wanted: Wanted, file: IO[bytes], on_bytes: OnBytes) -> None:
    """All bytes of ``wanted`` in ``file``, in up to ``_TRIES`` connections that each bring something."""
    fault: Exception = OSError("the connection broke")
    for _ in range(_TRIES):
        try:
            if _receive(wanted, file, on_bytes):
                return
        except urllib.error.HTTPError as error:
            raise _refused(wanted.url, error) from None
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) is not None and not isinstance(
                error, urllib.error.URLError | ConnectionError | TimeoutError
            ):
                raise  # the disk's, not the connection's
            fault = error
    raise _unreachable(wanted.url, fault)


def _receive(wanted: Wanted, file: IO[bytes], on_bytes: OnBytes) -> bool:
    """One connection's worth of bytes; whether the file is whole now."""
    have = file.seek(0, os.SEEK_END)
    with _opened(wanted.url, {"Range": f"bytes={have}-"} if have else {}) as answer:
        if have and answer.status != _TAKEN_UP:
            have = file.seek(0)
            file.truncate()
        left = answer.headers.get("Content-Length")
        total = have + int(left) if left and left.isdigit() else wanted.size
        while piece := answer.read(_PIECE):
            file.write(piece)
            have += len(piece)
            on_bytes(have, total)
        file.flush()
    return not total or have >= total


class _Careful(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(url: str, headers: dict[str, str]) -> Any:
    if not url.startswith(("http://", "https://")):
        raise SourceUnreachableError(f"{url} is no http address", "write https://…")
    request = urllib.request.Request(  # noqa: S310 - the scheme was just checked
        url, headers={"User-Agent": f"llamamgr/{VERSION}", **headers}
    )
    return urllib.request.build_opener(_Careful()).open(request, timeout=_SILENCE)


def _digest(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _refused(url: str, error: urllib.error.HTTPError) -> NotFoundError | SourceUnreachableError:
    with error:
        if error.code == http.client.NOT_FOUND:
            return NotFoundError(f"{url} does not exist (404)", "check the address and the version")
        said = error.read(300).decode("utf-8", "replace").strip()
    return SourceUnreachableError(
        f"{url} answers {error.code} {error.reason}{': ' + said if said else ''}", "try again later"
    )


def _unreachable(url: str, error: Exception) -> SourceUnreachableError:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return SourceUnreachableError(
        f"cannot get {url}: {reason}", "check the network and the proxy settings, then try again"
    )
