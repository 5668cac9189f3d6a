"""OpenAI's dialect, as far as a passage needs it: llama-server speaks it itself, so bytes pass through.

Read are only the model's name, whether to stream, and what must not reach the engine (media that it would
fetch from the network). Written are errors, the list of models, and one value in an answer: its top-level
``model``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.errors import DialectError
from llamamgr.wire.sse import MAX_EVENT

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]{0,31}):", re.IGNORECASE)
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRING_OR_BRACKET = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_STRING_VALUE = re.compile(rb"\s*:\s*(%s)" % _STRING, re.DOTALL)
_NO_URLS = "image URLs are not currently supported, please use base64 encoded data instead"


class Peek(msgspec.Struct, frozen=True):
    """What must be known of a request that is passed on. ``model`` is never empty."""

    model: str
    stream: bool = False


class _Part(msgspec.Struct):
    image_url: Any = None
    video_url: Any = None
    input_video: Any = None
    input_audio: Any = None


class _Turn(msgspec.Struct):
    content: str | list[_Part] | None = None


class _Chat(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    messages: list[_Turn] | None = None


def peek(body: bytes) -> Peek:
    """What a chat request says of itself.

    ``DialectError`` 400 when its body, messages or model are missing, and for media that would be fetched.
    """
    if not body.strip():
        raise DialectError(400, "EOF")
    chat = golang.decode(body, _Chat, "ChatCompletionRequest", {})
    if not chat.messages:
        raise DialectError(400, "[] is too short - 'messages'")
    parts = [part for turn in chat.messages if isinstance(turn.content, list) for part in turn.content]
    if any(map(_fetches, parts)):
        raise DialectError(400, _NO_URLS)
    if not chat.model:
        raise DialectError(400, "model is required")
    return Peek(chat.model, bool(chat.stream))


def _fetches(part: _Part) -> bool:
    """True for media given by an address: llama-server would fetch it from within this machine."""
    media = (part.image_url, part.video_url, part.input_video, part.input_audio)
    values = [value for one in media for value in (one.values() if isinstance(one, dict) else (one,))]
    schemes = [match[1] for value in values if isinstance(value, str) and (match := _SCHEME.match(value))]
    return any(scheme.lower() != "data" for scheme in schemes)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """The body of any error; its type follows from the status."""
    kind = _TYPES.get(status, "api_error")
    return golang.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def stream_error(message: str, status: int = 500) -> bytes:
    """An error inside a stream that has begun: its last event, after which the connection is to be cut."""
    return b"data: " + error_body(status, message) + b"\n\n"


def model_answer(name: str, created: float) -> bytes:
    """``GET /v1/models/{name}``; ``created`` is seconds since the epoch."""
    return golang.encode(_model(name, created))


def models_answer(models: Iterable[tuple[str, float]]) -> bytes:
    """``GET /v1/models`` of (name, seconds since the epoch)."""
    return golang.encode({"object": "list", "data": [_model(name, created) for name, created in models]})


def _model(name: str, created: float) -> dict[str, object]:
    return {"id": name, "object": "model", "created": int(created), "owned_by": "library"}


class ModelRewriter:
    """Puts the model's name as the client asked for it into an answer, a JSON object or a stream of events.

    Only the value of the top-level ``model`` of each object changes, every other byte stays. When the
    engine's name is the wanted one all bytes pass untouched. Events leave as soon as their line is whole, a
    JSON object at its end.
    """

    def __init__(self, alias: bytes, wanted: bytes) -> None:
        self._passing = alias == wanted
        self._wanted = msgspec.json.encode(wanted.decode("utf-8", "replace"))
        self._held = bytearray()
        self._is_object: bool | None = None

    def feed(self, data: bytes) -> bytes:
        """What can be passed on by now."""
        if self._passing:
            return data
        if self._is_object is None:
            # the first byte that is no white space tells an object from a stream
            start = (self._held + data).lstrip()[:1]
            self._is_object = start == b"{" if start else None
        if self._held or self._is_object is not False or not data.endswith(b"\n"):
            data = self._lines_of(data)
        return b"".join(map(self._line, data.splitlines(keepends=True)))

    def _lines_of(self, data: bytes) -> bytes:
        """The whole lines of a stream; the rest is held, as all of an object is."""
        self._held += data
        if self._is_object is not False:
            return b""
        end = self._held.rfind(b"\n") + 1
        if not end and len(self._held) > MAX_EVENT:
            end = len(self._held)
        lines = bytes(self._held[:end])
        del self._held[:end]
        return lines

    def eof(self) -> bytes:
        """What was still held."""
        held = bytes(self._held)
        self._held.clear()
        return self._renamed(held) if self._is_object else self._line(held)

    def _line(self, line: bytes) -> bytes:
        at = line.find(b"{") if line.startswith(b"data:") else -1
        return line[:at] + self._renamed(line[at:]) if at >= 0 else line

    def _renamed(self, json: bytes) -> bytes:
        start, end = _model_value(json)
        return json[:start] + self._wanted + json[end:] if end else json


class _Top(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw(b"")


_DECODE_TOP = msgspec.json.Decoder(_Top)


def _model_value(json: bytes) -> tuple[int, int]:
    """Start and end of the string value of the top-level ``model`` in one JSON object, or (0, 0)."""
    if json.count(b'"model"') != 1:
        return _walk(json)
    try:
        value = bytes(_DECODE_TOP.decode(json).model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0, 0
    start = json.find(b'"model":') + len(b'"model":')
    usual = value.startswith(b'"') and json.startswith(value, start)
    return (start, start + len(value)) if usual else _walk(json)


def _walk(json: bytes) -> tuple[int, int]:
    """``_model_value`` by walking over strings and brackets, for what is not written the usual way."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(json):
        text = token[0]
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif depth == 1 and text == b'"model"' and (value := _STRING_VALUE.match(json, token.end())):
            return value.span(1)
    return 0, 0
