"""Talking to the daemon over its control socket: a plain socket and our own HTTP parser, since ``http.client`` costs 20 ms."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

from llamamgr.core.errors import (
    EXIT_CODE,
    BusyError,
    ConflictError,
    DaemonUnreachableError,
    EngineError,
    LlamamgrError,
    NotFoundError,
    UsageError,
    kind_of_exit,
)
from llamamgr.host.paths import Paths, require_own
from llamamgr.wire.errors import ProtocolError
from llamamgr.wire.http1 import Body, End, Head, ResponseParser, request_bytes

_READ = 65536
_LOOK_SECONDS = 2.0


class Control:
    """One daemon's control API. Every method raises ``DaemonUnreachableError`` when nobody answers."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.run
        self._socket = str(paths.control_socket)

    def ping(self, timeout: float = 0.5) -> dict[str, Any] | None:
        """What the daemon says of itself, or None when there is none; never starts one."""
        try:
            return self.call("GET", "/control/ping", timeout=timeout)
        except DaemonUnreachableError:
            return None

    def call(
        self, method: str, path: str, body: object = None, timeout: float | None = 30.0
    ) -> dict[str, Any]:
        """A whole JSON answer; an error answer is raised as the error it tells of."""
        data = b"".join(self._body(method, path, body, timeout))
        return dict(json.loads(data)) if data else {}

    def lines(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """An NDJSON answer, line by line as it comes; an error line is raised."""
        rest = b""
        for data in self._body("POST", path, body, None):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                event = json.loads(line)
                if "error" in event:
                    raise _error_in_stream(event)
                yield event

    def _body(self, method: str, path: str, body: object, timeout: float | None) -> Iterator[bytes]:
        """The pieces of a good answer's body, as they come."""
        payload = b"" if body is None else json.dumps(body).encode()
        headers = [("Content-Type", "application/json")] if payload else []
        status, code, refused = 0, "", b""
        with self._connected(timeout) as connection:
            try:
                connection.sendall(request_bytes(method, path, headers, payload))
                for event in _events(connection):
                    match event:
                        case Head():
                            status, code = event.status, event.header(EXIT_CODE.lower())
                        case Body() if status < 400:
                            yield event.data
                        case Body():
                            refused += event.data
            except (OSError, ProtocolError) as error:
                raise self._unreachable(error) from None
        if status >= 400:
            raise _error_of(status, code, refused)

    def _connected(self, timeout: float | None) -> socket.socket:
        require_own(self._folder)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(self._socket)
        except OSError as error:
            connection.close()
            raise self._unreachable(error) from None
        return connection

    def _unreachable(self, error: Exception) -> DaemonUnreachableError:
        why = getattr(error, "strerror", None) or error
        return DaemonUnreachableError(
            f"no daemon answers on {self._socket} ({why})",
            "`llamamgr daemon start` starts one in the background, `llamamgr serve` in the foreground",
        )


def tell_of_models(paths: Paths) -> None:
    """Have a running daemon look at the models now: else it takes them, for a second, to be as they were."""
    try:
        Control(paths).call("GET", "/api/tags", timeout=_LOOK_SECONDS)
    except LlamamgrError:
        return  # no daemon, or one that has no time for this: it looks by itself


def _events(connection: socket.socket) -> Iterator[Head | Body]:
    parser = ResponseParser()
    while True:
        data = connection.recv(_READ)
        for event in parser.feed(data) if data else parser.eof():
            if isinstance(event, End):
                return
            yield event


_KINDS: dict[int, type[LlamamgrError]] = {
    400: UsageError,
    404: NotFoundError,
    409: ConflictError,
    503: BusyError,
}


def _error_in_stream(event: dict[str, Any]) -> LlamamgrError:
    """What the last line of a stream tells of; ``exit`` says which kind of error it is."""
    what, _, hint = str(event["error"]).partition("\nhint: ")
    kind = kind_of_exit(event.get("exit", 0)) or EngineError
    return kind(what, hint or "`llamamgr ps` shows what runs; its log is in the state folder")


def _error_of(status: int, exit_code: str, body: bytes) -> LlamamgrError:
    """``exit_code`` tells what kind of error it is; an answer without one is judged by its status."""
    try:
        data = json.loads(body)
        message = data["error"] if isinstance(data["error"], str) else data["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace")[:400] or f"the daemon answered {status}"
    what, _, hint = str(message).partition("\nhint: ")
    by_code = kind_of_exit(int(exit_code)) if exit_code.isdecimal() else None
    kind = by_code or _KINDS.get(status, EngineError)
    return kind(what, hint or ("`llamamgr list` shows what there is" if kind is NotFoundError else ""))
