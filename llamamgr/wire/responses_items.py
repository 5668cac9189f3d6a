"""Items of ``/v1/responses`` as turns of a conversation.

What an assistant did in several items (reasoning, a message, calls of functions) is one turn for a model's template.
Facts: OpenAI's Responses API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from llamamgr.wire import golang, images
from llamamgr.wire.custom_tools import arguments_of
from llamamgr.wire.errors import DialectError
from llamamgr.wire.files import text_of_file
from llamamgr.wire.neutral import MediaPart, Message, Part, TextPart, ToolCall
from llamamgr.wire.openai_chat import is_json
from llamamgr.wire.openai_tools import NOTHING
from llamamgr.wire.seals import unsealed

_MODELS_ID = 9
# what only OpenAI's servers did; their answers, which follow it, tell what came of it
HISTORY_OF_SERVERS = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
        *("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response"),
        *("tool_search_call", "tool_search_output"),
    }
)
_ROLES = ("user", "assistant", "system", "developer")


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: str | dict[str, Any] | None = None
    file_data: str | None = None
    filename: str | None = None
    input_audio: dict[str, Any] | None = None


_Text: TypeAlias = str | None
_Content: TypeAlias = str | list[_Part] | None


class Item(msgspec.Struct):
    """An input item of any kind, as it is on the wire. Raw is what may be anything in one that is passed over."""

    type: str | None = None
    role: str | None = None
    content: _Content = None
    call_id: str | None = None
    id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: msgspec.Raw = NOTHING
    input: msgspec.Raw = NOTHING
    output: msgspec.Raw = NOTHING
    summary: list[_Part] | None = None
    encrypted_content: str | None = None

    @property
    def is_reference(self) -> bool:
        """True when it only names an item of before."""
        return self.type == "item_reference" or (self.type is None and self.role is None and bool(self.id))


def joined(turns: Sequence[Message]) -> tuple[Message, ...]:
    """``turns`` as templates take them.

    Those of an assistant that follow each other are one, and so are system texts: many a template refuses a second one. Results
    of tools get the names that they were called by.
    """
    found: list[Message] = []
    names: dict[str, str] = {}
    for turn in turns:
        names |= {call.id: call.name for call in turn.tool_calls}
        told = turn
        if turn.role == "tool" and not turn.tool_name:
            told = msgspec.structs.replace(turn, tool_name=names.get(turn.tool_call_id, ""))
        both = _together(found[-1], told) if found else None
        if both is not None:
            found[-1] = both
        else:
            found.append(told)
    return tuple(found)


def _together(before: Message, turn: Message) -> Message | None:
    """Both as one turn; None when they are none."""
    if before.role != turn.role or before.parts or turn.parts:
        return None
    texts = [text for text in (before.content, turn.content) if text]
    if turn.role == "system":
        return Message("system", "\n\n".join(texts))
    if turn.role == "assistant":
        return Message(
            "assistant",
            "\n".join(texts),
            thinking=before.thinking + turn.thinking,
            tool_calls=(*before.tool_calls, *turn.tool_calls),
        )
    return None


def engines_id(call_id: str) -> str:
    """A call's id as the model gave it, where it did: templates of Mistral's take back nothing but their nine characters."""
    bare = call_id.removeprefix("call_")
    return bare if len(bare) == _MODELS_ID and bare.isalnum() else call_id


class Reading:
    """Reads items; collects the addresses of images that are still to be fetched."""

    def __init__(self, fetching: bool, fetched: Mapping[str, str]) -> None:
        self.wanted: dict[str, None] = {}
        self._fetching = fetching
        self._fetched = fetched

    def turns(self, item: Item, where: str) -> list[Message]:
        match item.type or ("message" if item.role else ""):
            case "message":
                return [self._message(item, where)]
            case "function_call":
                return [self._call(item, _text(item.arguments, f"{where}.arguments") or "{}", where)]
            case "custom_tool_call":
                return [self._call(item, arguments_of(_text(item.input, f"{where}.input")), where)]
            case "function_call_output" | "custom_tool_call_output":
                return [self._output(item, where)]
            case "reasoning":
                thought = _thought(item)
                return [Message("assistant", thinking=thought)] if thought else []
            case kind if kind in HISTORY_OF_SERVERS:
                return []
            case kind:
                raise DialectError(400, f"items of type {kind!r} are not served", param=f"{where}.type")

    def _message(self, item: Item, where: str) -> Message:
        role = item.role or "user"
        if role not in _ROLES:
            raise DialectError(
                400, f"{where}.role {role!r} is none of {', '.join(_ROLES)}", param=f"{where}.role"
            )
        parts = self._parts(item.content, f"{where}.content")
        return _turn("system" if role == "developer" else role, parts)

    def _call(self, item: Item, arguments: str, where: str) -> Message:
        if not item.name or not item.call_id:
            raise DialectError(400, f"{where}: a {item.type} needs name and call_id", param=where)
        if not is_json(arguments):
            raise DialectError(400, f"{where}.arguments are no JSON", param=f"{where}.arguments")
        name = within(item.namespace or "", item.name)
        return Message("assistant", tool_calls=(ToolCall(engines_id(item.call_id), name, arguments),))

    def _output(self, item: Item, where: str) -> Message:
        if not item.call_id:
            raise DialectError(400, f"{where}.call_id is required", param=f"{where}.call_id")
        output: _Content = _read(item.output, _Content, f"{where}.output")
        plain = _turn("tool", self._parts(output, f"{where}.output"))
        return msgspec.structs.replace(plain, tool_call_id=engines_id(item.call_id))

    def _parts(self, content: _Content, where: str) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (TextPart(content),)
        return tuple(self._part(part, f"{where}[{place}]") for place, part in enumerate(content or ()))

    def _part(self, part: _Part, where: str) -> Part:
        match part.type:
            case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
                return TextPart(part.text or "")
            case "refusal":
                return TextPart(part.refusal or "")
            case "input_image" | "image_url":
                given = part.image_url
                address = given.get("url") if isinstance(given, dict) else given
                return self._image(str(address or ""), where)
            case "input_audio":
                return self._audio(part.input_audio or {}, where)
            case "input_file":
                return TextPart(text_of_file(part.file_data, part.filename, where))
            case kind:
                raise DialectError(400, f"{where}: content of type {kind!r} is not served", param=where)

    def _audio(self, given: Mapping[str, Any], where: str) -> Part:
        data = given.get("data")
        if not isinstance(data, str) or not data or golang.illegal_base64_at(data) >= 0:
            raise DialectError(400, f"{where}.input_audio holds no base64 audio", param=where)
        return MediaPart(images.unwrapped(data), is_sound=True)

    def _image(self, address: str, where: str) -> Part:
        if address in self._fetched:
            return MediaPart(images.base64_of(self._fetched[address]))
        if images.is_address(address):
            if not self._fetching or not images.is_fetchable(address):
                raise DialectError(400, images.NO_ADDRESSES, param=where)
            self.wanted[address] = None
            return MediaPart("")
        data = images.base64_of(address)
        if not data or golang.illegal_base64_at(data) >= 0:
            raise DialectError(400, f"{where}.image_url holds no base64 image", param=where)
        return MediaPart(images.unwrapped(data))


def _text(raw: msgspec.Raw, where: str) -> str:
    return _read(raw, _Text, where) or ""


def _read(raw: msgspec.Raw, kind: Any, where: str) -> Any:
    return golang.decode(bytes(raw) or b"null", kind, "openai.Item", {}, where)


def _turn(role: str, parts: tuple[Part, ...]) -> Message:
    if any(isinstance(part, MediaPart) for part in parts):
        return Message(role, parts=parts)
    return Message(role, "\n".join(part.text for part in parts if isinstance(part, TextPart)))


def _thought(item: Item) -> str:
    """The text of a reasoning item, wherever the client kept it."""
    content = item.content if isinstance(item.content, list) else []
    text = "".join(part.text or "" for part in (content or item.summary or ()))
    return text or unsealed(item.encrypted_content or "")


def within(space: str, name: str) -> str:
    """The name that a tool of a namespace is offered by; its own without one."""
    return f"{space}__{name}" if space else name
