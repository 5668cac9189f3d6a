"""``/v1/audio/transcriptions``: OpenAI's form → the engine's, always as a stream, and its events → a transcript in OpenAI's words.

The engine makes a chat of the recording, so what it says begins as an answer of a chat does, often with a space: what stands
around a transcript is taken off, as in Ollama (source: middleware/openai.go).
"""

from __future__ import annotations

import msgspec

from llamamgr.wire import multipart
from llamamgr.wire.engine_errors import INCOMPLETE, UNREADABLE, ErrorBody, failure_of, reported, unreadable
from llamamgr.wire.errors import DialectError, ProtocolError
from llamamgr.wire.neutral import Failed, Usage
from llamamgr.wire.sse import Event, SseParser, sse

_NUMBERS = {"temperature": float, "max_tokens": int}
_TRUE, _FALSE = ("true", "1"), ("false", "0", "")


class TranscriptionRequest(msgspec.Struct, frozen=True):
    """``form`` is the engine's, of ``content_type``; ``as_text`` wants the bare text, ``stream`` events."""

    model: str
    content_type: str
    form: bytes
    as_text: bool = False
    stream: bool = False


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: _Details = msgspec.field(default_factory=_Details)


class _Told(msgspec.Struct):
    type: str = ""
    delta: str | None = None
    usage: _Usage | None = None
    error: ErrorBody | None = None


def parse(content_type: str, body: bytes) -> TranscriptionRequest:
    """``DialectError`` 400 for what is missing or cannot be asked."""
    form = multipart.parse(content_type, body)
    model, wanted = form.field("model"), form.field("response_format") or "json"
    if not model:
        raise DialectError(400, "model is required", param="model")
    if not form.has_file("file"):
        raise DialectError(400, "file is required", param="file")
    if wanted not in ("json", "text"):
        raise DialectError(
            400, f"response_format {wanted!r} is not served; json and text are", param="response_format"
        )
    for name, kind in _NUMBERS.items():
        _check_number(form, name, kind)
    return TranscriptionRequest(
        model,
        content_type,
        form.with_fields({"response_format": "json", "stream": "true"}),
        as_text=wanted == "text",
        stream=_flag(form, "stream"),
    )


def _check_number(form: multipart.Form, name: str, kind: type[float] | type[int]) -> None:
    if not (given := form.field(name)):
        return
    try:
        kind(given)
    except ValueError:
        raise DialectError(400, f"{name} must be a number, not {given[:100]!r}", param=name) from None


def _flag(form: multipart.Form, name: str) -> bool:
    given = form.field(name).lower()
    if given not in (*_TRUE, *_FALSE):
        raise DialectError(400, f"{name} must be true or false, not {given[:100]!r}", param=name)
    return given in _TRUE


class Transcript:
    """What comes of a recording: ``feed`` gives the text that is new, and after the end ``text`` is the whole.

    Joined, the pieces are ``text``. ``failed`` is set when the engine's stream is none, or tells of a failure.
    """

    def __init__(self) -> None:
        self._events = SseParser()
        self._pieces: list[str] = []
        self._held = ""  # white space that only counts once something follows it
        self.usage = Usage()
        self.ended = False
        self.failed: Failed | None = None

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def feed(self, data: bytes) -> str:
        try:
            events, broken = self._events.feed(data), None
        except ProtocolError as error:
            events, broken = [event for event in error.before if isinstance(event, Event)], error
        told = "".join([self._said(event) for event in events])
        if broken is not None and not self.failed:
            self.failed = unreadable(broken)
        return told

    def eof(self) -> None:
        """Nothing more comes."""
        if not self.ended and not self.failed:
            self.failed = INCOMPLETE

    def _said(self, event: Event) -> str:
        if self.ended or self.failed:
            return ""
        if event.name == "error":
            self.failed = failure_of(event.data)
            return ""
        if event.data == b"[DONE]":
            return ""
        try:
            told = msgspec.json.decode(event.data, type=_Told)
        except UNREADABLE as error:
            self.failed = unreadable(error)
            return ""
        if told.error is not None:
            self.failed = reported(told.error)
        elif told.type == "transcript.text.done":
            self._finish(told.usage or _Usage())
        return self._trimmed(told.delta or "")

    def _finish(self, usage: _Usage) -> None:
        self.ended = True
        self.usage = Usage(usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens)

    def _trimmed(self, piece: str) -> str:
        piece = self._held + piece
        if not self._pieces:
            piece = piece.lstrip()
        kept = piece.rstrip()
        self._held = piece[len(kept) :]
        if kept:
            self._pieces.append(kept)
        return kept


def answer(transcript: Transcript) -> bytes:
    """A whole transcript."""
    return msgspec.json.encode({"text": transcript.text, "usage": _usage(transcript.usage)})


def piece_event(text: str) -> bytes:
    return sse(msgspec.json.encode({"type": "transcript.text.delta", "delta": text}))


def last_event(transcript: Transcript) -> bytes:
    """The end of a stream, with all of the text once more."""
    told = {
        "type": "transcript.text.done",
        "text": transcript.text,
        "usage": _usage(transcript.usage),
    }
    return sse(msgspec.json.encode(told)) + sse(b"[DONE]")


def _usage(usage: Usage) -> dict[str, object]:
    return {
        "type": "tokens",
        "input_tokens": usage.prompt,
        "input_token_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }
