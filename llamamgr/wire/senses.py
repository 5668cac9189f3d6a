"""Media in the results of tools, for a model without the sense for them: words stand in their place, and the session goes on.

An agent's tool, not its user, gave them back. They stay in the conversation, so a refusal would be one of every turn to come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeGuard, TypeVar

import msgspec

from llamamgr.wire.neutral import MediaPart, Message, Part, TextPart

_Turn = TypeVar("_Turn", Message, Message | msgspec.Raw)

_IMAGE = TextPart("[an image, which this model cannot see]")
_SOUND = TextPart("[a sound, which this model cannot hear]")
PDF = "[a PDF, which this model cannot read]"


def has_media(turns: Iterable[Message | msgspec.Raw]) -> bool:
    return any(isinstance(turn, Message) and turn.parts for turn in turns)


def perceived(turns: Iterable[_Turn], capabilities: Collection[str]) -> tuple[_Turn, ...]:
    """``turns`` as a model of those ``capabilities`` (Ollama's words) can take the results of tools among them."""
    return tuple(_perceived(turn, capabilities) if _is_result(turn) else turn for turn in turns)


def _is_result(turn: Message | msgspec.Raw) -> TypeGuard[Message]:
    """True for a result of a tool with media in it."""
    return isinstance(turn, Message) and turn.role == "tool" and bool(turn.parts)


def _perceived(turn: Message, capabilities: Collection[str]) -> Message:
    parts = tuple(_told(part, capabilities) for part in turn.parts)
    if any(isinstance(part, MediaPart) for part in parts):
        return msgspec.structs.replace(turn, parts=parts)
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return msgspec.structs.replace(turn, content=text, parts=())


def _told(part: Part, capabilities: Collection[str]) -> Part:
    if not isinstance(part, MediaPart):
        return part
    sense, instead = ("audio", _SOUND) if part.is_sound else ("vision", _IMAGE)
    return part if sense in capabilities else instead
