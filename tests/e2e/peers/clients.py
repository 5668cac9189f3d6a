"""Clients of three dialects that see the bytes: what came, and whether the end was clean."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from llamamgr.models import selftest
from tests.e2e.conftest import Daemon

OLLAMA, OPENAI, ANTHROPIC = "/api/chat", "/v1/chat/completions", "/v1/messages"
DIALECTS = (OLLAMA, OPENAI, ANTHROPIC)
_TIMEOUT = 60.0


def body_of(
    path: str, model: str, text: str = "hello", *, tokens: int = 0, stream: bool = True
) -> dict[str, Any]:
    """A chat in the dialect of ``path``; ``tokens`` 0 = as many as come."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}
    if path == OLLAMA:
        return body | {"think": False, "options": {"num_predict": tokens} if tokens else {}}
    if path == ANTHROPIC:
        return body | {"max_tokens": tokens or selftest.CONTEXT}
    return (
        body
        | ({"max_tokens": tokens} if tokens else {})
        | {"chat_template_kwargs": {"enable_thinking": False}}
    )


class Answer:
    """The answer to one request, read as far as was asked. ``clean`` is True once its end came as HTTP has it."""

    def __init__(self, url: str, path: str, body: object, headers: Mapping[str, str] | None = None) -> None:
        where = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_TIMEOUT)
        self.started = time.monotonic()
        sent = {"Content-Type": "application/json", **(headers or {})}
        self._connection.request("POST", path, json.dumps(body), sent)
        self._response: http.client.HTTPResponse | None = None
        self.data = b""
        self.clean = False

    @property
    def response(self) -> http.client.HTTPResponse:
        """The head; waited for when it has not come."""
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    @property
    def status(self) -> int:
        return self.response.status

    def read_tokens(self, count: int) -> None:
        """Read until ``count`` more lines with something in them have come."""
        wanted = self.data.count(b"\n") + count
        while self.data.count(b"\n") < wanted:
            piece = self.response.read1(65536)
            assert piece, self.data
            self.data += piece

    def rest(self) -> bytes:
        """Read to the end, clean or not."""
        try:
            while piece := self.response.read1(65536):
                self.data += piece
            self.clean = True
        except (http.client.IncompleteRead, OSError):
            pass
        self.leave()
        return self.data

    def leave(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()

    @property
    def last(self) -> Any:
        """The last line's JSON, or ``[DONE]``."""
        line = self.data.strip().splitlines()[-1].removeprefix(b"data: ")
        return "[DONE]" if line == b"[DONE]" else json.loads(line)

    @property
    def error(self) -> str:
        """The message of the error it ended with, from whichever dialect's envelope."""
        told = self.last["error"]
        return str(told if isinstance(told, str) else told["message"])


def ask(daemon: Daemon, model: str, path: str = OLLAMA, text: str = "hello", **more: Any) -> Answer:
    """A whole, unstreamed answer."""
    answer = Answer(daemon.url, path, body_of(path, model, text, stream=False, **more))
    answer.rest()
    return answer


def endless(daemon: Daemon, model: str, path: str = OLLAMA, **more: Any) -> Answer:
    """A stream that counts on, of which something has come."""
    answer = Answer(daemon.url, path, body_of(path, model, selftest.ENDLESS_PROMPT, **more))
    answer.read_tokens(1)
    return answer
