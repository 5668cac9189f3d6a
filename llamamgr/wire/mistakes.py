"""What is told of a body that cannot be read, as clients of OpenAI and of Anthropic know it.

OpenAI names the field in ``param`` (``messages[0].content``), the kind of mistake in ``code``, and both in the sentence. What
Anthropic says are sentences of pydantic after the field (``messages.0.content: Input should be a valid string``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from llamamgr.wire.errors import DialectError

_COMPLAINT = re.compile(r"Expected `([^`]*)`, got `(\w+)`")
_PLACE = re.compile(r" - at `\$\.?(.*)`")
_STEP = re.compile(r"\[(\d+)\]|(\[\.\.\.\]|[^.\[\]]+)")
_ANY = "[...]"

# msgspec's word → OpenAI's, and pydantic's
_OPENAI = {
    "str": "a string",
    "int": "an integer",
    "float": "a decimal",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
_PYDANTIC = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "array": "list",
    "object": "dictionary",
}
_KINDS = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    list: "array",
    dict: "object",
    type(None): "null",
}


def ill_typed(package: str, complaint: str, body: bytes, at: str = "") -> DialectError:
    """The error for ``complaint``, msgspec's, of a field of ``body``; that stands at ``at`` of what the client sent."""
    said = _COMPLAINT.search(complaint)
    path = [*filter(None, [at]), *place(complaint, body)]
    expected = [word for word in said[1].split(" | ") if word in _PYDANTIC] if said else []
    if package == "anthropic":
        return DialectError(400, _in_words_of_pydantic(path, expected))
    shown = _subscripted(path)
    wanted = [_OPENAI[word] for word in expected]
    which = f"one of {' or '.join(wanted)}" if len(wanted) > 1 else "".join(wanted) or "another value"
    got = _OPENAI.get(said[2], said[2]) if said else ""
    told = f"expected {which}" + (f", but got {got} instead." if got else ".")
    what = f"Invalid type for '{shown}'" if shown else "Invalid type for the body"
    return DialectError(400, f"{what}: {told}", param=shown or None, code="invalid_type")


def place(complaint: str, body: bytes) -> list[str | int]:
    """Where in ``body`` stands what ``complaint``, msgspec's, is about: keys and indices."""
    said, found = _COMPLAINT.search(complaint), _PLACE.search(complaint)
    steps = [int(index) if index else name for index, name in _STEP.findall(found[1])] if found else []
    return _concrete(body, steps, said[2] if said else "")


def malformed(package: str, complaint: str) -> DialectError:
    """The error for a body that is no JSON; ``complaint`` says where it ends to be any."""
    if package == "anthropic":
        return DialectError(400, f"The request body is not valid JSON: {complaint}")
    return DialectError(400, f"We could not parse the JSON body of your request: {complaint}")


def _in_words_of_pydantic(path: Sequence[str | int], expected: Sequence[str]) -> str:
    wanted = " or ".join(_PYDANTIC[word] for word in expected) or "value"
    return ".".join(map(str, path or ("body",))) + f": Input should be a valid {wanted}"


def _subscripted(path: Sequence[str | int]) -> str:
    shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return shown.removeprefix(".")


def _concrete(body: bytes, steps: list[str | int], got: str) -> list[str | int]:
    """``steps`` with the first key whose value is ``got``, where msgspec tells only that it is one of a dictionary."""
    plain = [step for step in steps if step != _ANY]
    if _ANY not in steps:
        return plain
    try:
        found = _search(msgspec.json.decode(body), steps, got)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return plain if found is None else found


def _search(value: Any, steps: list[str | int], got: str) -> list[str | int] | None:
    if not steps:
        return [] if _KINDS.get(type(value)) == got else None
    first, rest = steps[0], steps[1:]
    for key, inner in _members(value):
        if first in (_ANY, key) and (found := _search(inner, rest, got)) is not None:
            return [key, *found]
    return None


def _members(value: Any) -> Sequence[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else ()
