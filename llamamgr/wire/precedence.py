"""Tools and a format of the answer in one chat: the model may call first, and the format binds what it says in the end.

So OpenAI and Anthropic have it. llama-server offers no tools where there is a format, not even one that must be called (source:
b11434, common/chat-auto-parser-generator.cpp). So the one of the two that the model needs is asked for: which, an answer begun
without the format shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from llamamgr.wire.engine_errors import UNREADABLE
from llamamgr.wire.neutral import Event, Finished, TextDelta, ToolCallDelta

Turn: TypeAlias = Literal["calls", "answers"]

_FORMATS = ("json_object", "json_schema")
_ANSWERS = ("{", "[", "```")  # what begins so is no preamble of a call
_LONGEST_PREAMBLE = 400  # characters
_NO_MATTER = ("response_format", "n", "logprobs", "top_logprobs", "stream", "stream_options")


class _Format(msgspec.Struct):
    type: str | None = None


class Both(msgspec.Struct, frozen=True):
    """The body of a chat with tools and a format. ``must_call``: its ``tool_choice`` leaves no choice."""

    fields: dict[str, msgspec.Raw]
    must_call: bool

    def probe(self) -> bytes:
        """What shows whether the model calls."""
        asked = {name: value for name, value in self.fields.items() if name not in _NO_MATTER}
        return msgspec.json.encode({**asked, "stream": True})

    def calling(self) -> bytes:
        """For a model that calls."""
        asked = {name: value for name, value in self.fields.items() if name != "response_format"}
        return msgspec.json.encode(asked if self.must_call else {**asked, "tool_choice": "required"})


def both_of(body: bytes) -> Both | None:
    """A chat request that has tools to call and a format; None for any other."""
    if b'"response_format"' not in body or b'"tools"' not in body:
        return None
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        form = msgspec.json.decode(fields["response_format"], type=_Format | None)
    except (*UNREADABLE, LookupError):
        return None
    choice = bytes(fields.get("tool_choice", b""))
    if form is None or form.type not in _FORMATS or choice == b'"none"':
        return None
    if bytes(fields.get("tools", b"")).strip(b"[] \t\r\n") in (b"", b"null"):
        return None
    return Both(fields, must_call=choice not in (b"", b"null", b'"auto"'))


class Watch:
    """Events of an answer without a format, until they show what it is: ``turn``, None before."""

    def __init__(self) -> None:
        self.turn: Turn | None = None
        self._said = ""

    def feed(self, events: Iterable[Event]) -> None:
        for event in events:
            if self.turn is not None:
                return
            if isinstance(event, ToolCallDelta):
                self.turn = "calls"
            elif isinstance(event, TextDelta):
                self._said = (self._said + event.text).lstrip()
                if self._said.startswith(_ANSWERS) or len(self._said) > _LONGEST_PREAMBLE:
                    self.turn = "answers"
            elif isinstance(event, Finished):
                self.turn = "answers"
