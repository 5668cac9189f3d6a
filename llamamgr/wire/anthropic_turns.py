"""The content of Anthropic's messages as turns of a conversation.

Blocks keep their order: a tool's result becomes a turn of its own, the text after it another. Turns of one role that
follow each other are one turn, as with Anthropic. Facts: Anthropic's Messages API; texts that Ollama's clients know
(Ollama anthropic/anthropic.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llamamgr.wire import golang, images
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import MediaPart, Message, Part, TextPart, ToolCall
from llamamgr.wire.seals import unsealed
from llamamgr.wire.senses import PDF

_NOTHING = msgspec.Raw(b"")
# what the id of a call begins with for Anthropic's clients
CALL_ID = "toolu_"
# what Claude Code knows a refused image and a refused document by
NO_IMAGE = f"Could not process image: {images.NO_MEDIA}"
_NO_PDF = "Could not process PDF: documents are read as text only, not as base64"
# what only Anthropic's servers did, and what no model here can read
_HISTORY_OF_SERVERS = ("server_tool_use", "redacted_thinking", "mcp_tool_use", "container_upload")


class _Source(msgspec.Struct):
    type: str = ""
    data: str | None = None
    url: str | None = None
    content: Any = None


class Block(msgspec.Struct):
    """A content block of any type, as it is on the wire."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    source: _Source | str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = _NOTHING
    tool_use_id: str | None = None
    content: msgspec.Raw = _NOTHING
    is_error: bool | None = None
    title: str | None = None
    context: str | None = None


class Turn(msgspec.Struct):
    """A message as it is on the wire."""

    role: str = ""
    content: str | list[Block] | None = None


class Images:
    """Turns sources into base64; collects the addresses that are still to be fetched."""

    def __init__(self, fetching: bool, fetched: Mapping[str, str]) -> None:
        self.wanted: dict[str, None] = {}
        self._fetching = fetching
        self._fetched = fetched

    def part(self, source: _Source | str | None, where: str) -> Part:
        given = source if isinstance(source, _Source) else _Source()
        address = given.url or ""
        if given.type == "url" and address in self._fetched:
            return MediaPart(images.base64_of(self._fetched[address]))
        if given.type == "url" and self._fetching and images.is_fetchable(address):
            self.wanted[address] = None
            return MediaPart("")
        if not isinstance(source, _Source):
            raise DialectError(400, "invalid image source")
        if given.type != "base64":
            raise DialectError(
                400, f"invalid image source type: {given.type}. Only base64 images are supported."
            )
        data = given.data or ""
        fault = golang.illegal_base64_at(data) if data else 0
        if fault >= 0:
            told = f"invalid base64 image data: illegal base64 data at input byte {fault}"
            raise DialectError(400, f"{where}.source.data: {told}")
        return MediaPart(images.unwrapped(data))


class Conversation:
    """Turns as they are added; those of one role that follow each other become one."""

    def __init__(self, pictures: Images) -> None:
        self.messages: list[Message] = []
        self._pictures = pictures
        self._names: dict[str, str] = {}

    def add(self, turn: Turn, where: str) -> None:
        if turn.role not in ("user", "assistant", "system"):
            raise DialectError(400, f"{where}.role: {turn.role!r} is neither 'user' nor 'assistant'")
        blocks = [Block("text", text=turn.content)] if isinstance(turn.content, str) else turn.content
        if blocks is None:
            raise DialectError(400, f"{where}.content: is required")
        parts: list[Part] = []
        calls: list[ToolCall] = []
        thoughts: list[str] = []
        for place, block in enumerate(blocks):
            at = f"{where}.content.{place}"
            if block.type == "tool_result":
                self._say(turn.role, parts)
                parts = []
                self._result(block, at)
            elif block.type == "tool_use":
                calls.append(self._call(block, at, len(calls)))
            elif block.type == "thinking":
                thoughts.append(block.thinking or unsealed(block.signature or ""))
            else:
                parts += self._parts(block, at)
        self._say(turn.role, parts, "".join(thoughts), tuple(calls))

    def _say(
        self, role: str, parts: Iterable[Part], thinking: str = "", calls: tuple[ToolCall, ...] = ()
    ) -> None:
        said = tuple(parts)
        if not (said or thinking or calls):
            return
        before = self.messages[-1] if self.messages else Message("")
        if before.role == role:
            self.messages.pop()
            said = (*_parts_of(before), *said)
            thinking = before.thinking + thinking
            calls = (*before.tool_calls, *calls)
        self.messages.append(_message(role, said, thinking, calls))

    def _call(self, block: Block, where: str, index: int) -> ToolCall:
        for field, value in (("id", block.id), ("name", block.name)):
            if not value:
                raise DialectError(400, f"{where}: tool_use block missing required '{field}' field")
        assert block.id and block.name
        call_id = _engines(block.id)
        self._names[call_id] = block.name
        given = bytes(block.input)
        if given not in (b"", b"null") and not given.startswith(b"{"):
            raise DialectError(400, f"{where}.input: must be an object")
        return ToolCall(call_id, block.name, given.decode() if given.startswith(b"{") else "{}", index)

    def _result(self, block: Block, where: str) -> None:
        if not block.tool_use_id:
            raise DialectError(400, f"{where}.tool_use_id: is required")
        given = bytes(block.content)
        parts: list[Part] = []
        if given.startswith(b'"'):
            parts = [TextPart(msgspec.json.decode(given, type=str))]
        elif given.startswith(b"["):
            inner = golang.decode(given, list[Block], "anthropic.Block", {}, f"{where}.content")
            for place, one in enumerate(inner):
                parts += self._given_back(one, f"{where}.content.{place}")
        if block.is_error:
            parts.insert(0, TextPart("Error:"))
        plain, call_id = _message("tool", tuple(parts)), _engines(block.tool_use_id)
        self.messages.append(
            msgspec.structs.replace(plain, tool_call_id=call_id, tool_name=self._names.get(call_id, ""))
        )

    def _given_back(self, block: Block, where: str) -> list[Part]:
        """A block of a tool's result; tools that its search found are offered already, and no PDF ends the session."""
        if block.type == "tool_reference":
            return []
        if block.type == "document" and isinstance(block.source, _Source) and block.source.type == "base64":
            return [TextPart(PDF)]
        return self._parts(block, where)

    def _parts(self, block: Block, where: str) -> list[Part]:
        match block.type:
            case "text":
                return [TextPart(block.text)] if block.text else []
            case "image":
                return [self._pictures.part(block.source, where)]
            case "compaction":
                return [TextPart(_texts(block.content, f"{where}.content"))]
            case "document":
                return [TextPart(_document(block, where))]
            case "search_result":
                return [TextPart(_found(block, where))]
            case _ if block.type in _HISTORY_OF_SERVERS or block.type.endswith("_tool_result"):
                return []
        raise DialectError(400, f"{where}: blocks of type {block.type!r} are not served")


def _engines(id: str) -> str:  # noqa: A002 - the field's name
    """A call's id as the engine gave it: some templates refuse others, and the prompt stays the one that is cached."""
    return id.removeprefix(CALL_ID)


def _found(block: Block, where: str) -> str:
    """A result of somebody's search: where it is from, what it is called, and what it says."""
    source = block.source if isinstance(block.source, str) else ""
    said = (source, block.title, _texts(block.content, f"{where}.content"))
    return "\n".join(filter(None, said))


def _document(block: Block, where: str) -> str:
    source = block.source if isinstance(block.source, _Source) else _Source()
    if source.type == "text":
        text = source.data or ""
    elif source.type == "content":
        text = _texts(msgspec.Raw(msgspec.json.encode(source.content)), f"{where}.source.content")
    elif source.type == "base64":
        raise DialectError(400, _NO_PDF)
    else:
        raise DialectError(
            400, f"{where}: documents are read as text only, not as {source.type or 'nothing'}"
        )
    return "\n".join(filter(None, (block.title, block.context, text)))


def _texts(raw: msgspec.Raw, where: str) -> str:
    given = bytes(raw)
    if given.startswith(b'"'):
        return str(msgspec.json.decode(given, type=str))
    if not given.startswith(b"["):
        return ""
    return "\n".join(
        block.text or "" for block in golang.decode(given, list[Block], "anthropic.Block", {}, where)
    )


def _message(
    role: str, parts: tuple[Part, ...], thinking: str = "", calls: tuple[ToolCall, ...] = ()
) -> Message:
    """A turn; one that has no media is plain text, which every template takes."""
    if any(isinstance(part, MediaPart) for part in parts):
        return Message(role, thinking=thinking, tool_calls=calls, parts=parts)
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return Message(role, text, thinking=thinking, tool_calls=calls)


def _parts_of(message: Message) -> tuple[Part, ...]:
    if message.parts:
        return message.parts
    return (TextPart(message.content),) if message.content else ()
