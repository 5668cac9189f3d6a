"""A chat answer of the engine on its way to a client of OpenAI: passed on, under the name the client asked for.

Each frame is checked to be what it should be (one JSON object with ``choices``) and framed anew, so that no byte
of a broken stream reaches a client. Four values change: ``model``; the reasoning, which is told under both names that
clients know, ``reasoning`` (Ollama's) and ``reasoning_content`` (the engine's); ids that the engine made up for calls,
which begin as OpenAI's do (one that the model itself gave stays: some templates take back no other); and the content of a
stream's first event, which the engine tells as null and which clients add to.
"""

from __future__ import annotations

import re

import msgspec

from llamamgr.wire.engine_errors import INCOMPLETE, UNREADABLE, failure_of, unreadable
from llamamgr.wire.engine_stream import usage_in
from llamamgr.wire.neutral import Failed, Usage
from llamamgr.wire.runs import MARK, Runs
from llamamgr.wire.sse import MAX_EVENT

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRING_OR_BRACKET = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_STRING_VALUE = re.compile(rb"\s*:\s*(%s)" % _STRING, re.DOTALL)
# as a key only: inside a string the quotes would be escaped
_THOUGHT = re.compile(rb'"reasoning_content":(%s)' % _STRING, re.DOTALL)
_TWICE = rb'"reasoning":\1,"reasoning_content":\1'
_CALLS = b'"tool_calls":['
_BARE_ID = re.compile(rb'"id":"([A-Za-z0-9]{32})"')
_OPENAIS_ID = rb'"id":"call_\1"'
_MODEL = b'"model":'
_NOTHING_YET = b'"delta":{"role":"assistant","content":null}'
_SLOT = b"\\u0000"  # a text that stands for all others
_IGNORED = (b":", b"event:", b"id:", b"retry:")


class _Answer(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw(b"")
    model: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")
    timings: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    usage: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Answer).decode


class BadAnswerError(Exception):
    """What came is no answer, or ends badly; ``failed`` is what there is to tell."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Relay:
    """One answer, under the name ``wanted``.

    For a stream call ``feed`` with what comes and ``eof`` at its end; what ``feed`` returns can be written at once.
    After a bad frame it returns what came before it, and ``failed`` is set.
    """

    def __init__(self, wanted: str) -> None:
        self.failed: Failed | None = None
        self.ended = False
        self._wanted = msgspec.json.encode(wanted)
        self._held = b""
        self._counted = b""
        self._runs = Runs()
        self._frame = (b"", b"", b"")  # what is around a run's text, and what it becomes: before and after

    def feed(self, *pieces: bytes) -> bytes:
        """What these bytes complete; ``pieces`` as they came, best a frame each."""
        out, at = [], 0
        while at < len(pieces) and not self._over:
            texts = [] if self._held else self._runs.take(pieces, at)
            if texts:
                out.append(self._said(texts))
                at += len(texts)
            else:
                out += self._lines(pieces[at])
                at += 1
        return b"".join(out)

    def _lines(self, piece: bytes) -> list[bytes]:
        data, self._held = self._held + piece, b""
        if not data.endswith(b"\n"):
            end = data.rfind(b"\n") + 1
            data, self._held = data[:end], data[end:]
            if len(self._held) > MAX_EVENT:
                self.failed = Failed(
                    502, f"the engine sent an event longer than {MAX_EVENT} bytes", "protocol_error"
                )
        told = [self._line(line) for line in data.splitlines() if not self._over]
        if data.endswith(b"\n\n") and not self._over:
            self._runs.learn(data[data.rfind(b"\n\n", 0, -2) + 2 :] if data.count(b"\n\n") > 1 else data)
        return told

    def _said(self, texts: list[bytes]) -> bytes:
        """A run of frames under the name that was asked for: only what is around their texts changes."""
        known, before, after = self._frame
        if known is not self._runs.before:
            frame = self._runs.before[6:] + _SLOT + self._runs.after
            around = b"data: " + _renamed(frame, _checked(frame), self._wanted)
            place = around.index(MARK + _SLOT) + len(MARK)
            before, after = around[:place], around[place + len(_SLOT) :]
            self._frame = (self._runs.before, before, after)
        return before + (after + before).join(texts) + after

    @property
    def usage(self) -> Usage:
        """The tokens that the engine told of last; of a stream without usage, those of the choice that ended last."""
        return usage_in(self._counted)

    @property
    def _over(self) -> bool:
        return self.ended or self.failed is not None

    def eof(self) -> None:
        """The body has ended: a stream that was not complete has ``failed``."""
        if not self.ended and self.failed is None:
            self.failed = INCOMPLETE

    def _line(self, line: bytes) -> bytes:
        if line.startswith(b"data:"):
            return self._data(line[5:].strip())
        if line.startswith(b":"):
            return b":\n\n"
        if line.startswith(b"error:"):
            self.failed = failure_of(line[6:].strip())
        elif line and not line.startswith(_IGNORED):
            self.failed = unreadable("a line that is no field of an event")
        return b""

    def _data(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            self.ended = True
            return b"data: [DONE]\n\n"
        try:
            answer = _checked(data)
            if _NOTHING_YET in data:
                data = data.replace(_NOTHING_YET, _NOTHING_YET.replace(b"null", b'""'))
            if answer.timings is not msgspec.UNSET or answer.usage is not msgspec.UNSET:
                self._counted = data
            return b"data: " + _renamed(data, answer, self._wanted) + b"\n\n"
        except UNREADABLE as error:
            self.failed = unreadable(error)
        except BadAnswerError as error:
            self.failed = error.failed
        return b""


def whole_answer(body: bytes, wanted: str) -> bytes:
    """An answer without a stream, under the name ``wanted``; ``BadAnswerError`` when it is none."""
    try:
        return _renamed(body, _checked(body), msgspec.json.encode(wanted))
    except UNREADABLE as error:
        raise BadAnswerError(unreadable(error)) from None


def _checked(json: bytes) -> _Answer:
    """What is to be known of an answer or a piece of one; ``BadAnswerError`` when it is none."""
    answer = _decode(json)
    if not bytes(answer.choices).startswith(b"["):
        if bytes(answer.error):
            raise BadAnswerError(failure_of(json))
        raise BadAnswerError(unreadable("an answer without choices"))
    return answer


def _renamed(json: bytes, answer: _Answer, wanted: bytes) -> bytes:
    if not json.isascii():
        json.decode()  # strings that are skipped while decoding are not looked at
    start, end = _place_of(json, bytes(answer.model))
    if end:
        json = json[:start] + wanted + json[end:]
    if _CALLS in json:
        json = _BARE_ID.sub(_OPENAIS_ID, json)
    return _THOUGHT.sub(_TWICE, json) if b'"reasoning_content":"' in json else json


def _place_of(json: bytes, value: bytes) -> tuple[int, int]:
    """Start and end of the string that is the top-level ``model`` of a JSON object, or (0, 0)."""
    if not value.startswith(b'"'):
        return 0, 0
    start = json.find(_MODEL) + len(_MODEL)
    if json.startswith(value, start) and json.find(b'"model"', start) < 0:
        return start, start + len(value)
    return _walk(json)


def _walk(json: bytes) -> tuple[int, int]:
    """``_place_of`` by walking over strings and brackets, for what is not written the usual way."""
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
