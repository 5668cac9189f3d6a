"""OpenAI's custom tools take a text, and models call functions: each is offered as a function of one text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# what a custom tool takes, as the parameters of a function
INPUT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
}


class _Input(msgspec.Struct):
    input: str


def described(description: str | None, syntax: str, definition: str) -> str:
    """What the model is told of one; a grammar of its text is told in words, since the engine has none of arguments."""
    told = [description or ""]
    if definition:
        told.append(f"The input is written in this {syntax} grammar:\n{definition}")
    return "\n\n".join(filter(None, told))


def arguments_of(text: str) -> str:
    """The arguments of a function that stands for a custom tool which is given ``text``."""
    return msgspec.json.encode({"input": text}).decode()


def input_of(arguments: str) -> str:
    """The text in such arguments; they themselves, where they are none, or cut off."""
    try:
        return msgspec.json.decode(arguments, type=_Input).input
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments
