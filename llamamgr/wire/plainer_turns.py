"""A conversation for a chat template that refuses it as it is.

Templates know different orders of turns: some take one system text, at the beginning, others only turns of user and assistant by
turns (Qwen's newer ones, Mistral's). Agents put system texts between the turns and several turns of one role in a row, which other
templates take, and are better told as they are. So the order is changed only where a template has refused it, the same way each
time, so that the engine's cache of the prompt holds.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from llamamgr.wire.engine_errors import REFUSED_BY_TEMPLATE, UNREADABLE
from llamamgr.wire.neutral import Failed

_Turn: TypeAlias = dict[str, Any]
_SYSTEM = ("system", "developer")
_JOINED = ("system", "user", "assistant")
_TEXTS = ("content", "reasoning_content")


def plainer(body: bytes, failed: Failed) -> bytes | None:
    """``body``, a chat request that ``failed`` as told, with turns that more templates take; None when there is nothing to mend.

    First later system texts become the user's and turns of one role one; where that was done already, what a user says after the
    result of a tool goes into that result.
    """
    if not failed.message.startswith(REFUSED_BY_TEMPLATE):
        return None
    try:
        top = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        given = msgspec.json.decode(top["messages"], type=list[_Turn])
    except (*UNREADABLE, LookupError):
        return None
    turns = _joined(_with_system_first(given))
    if turns == given:
        turns = _after_tools(given)
    return None if turns == given else msgspec.json.encode({**top, "messages": turns})


def _with_system_first(given: list[_Turn]) -> list[_Turn]:
    turns: list[_Turn] = []
    for turn in given:
        is_system = turn.get("role") in _SYSTEM
        is_late = is_system and any(one.get("role") != "system" for one in turns)
        turns.append({**turn, "role": "user" if is_late else "system"} if is_system else turn)
    return turns


def _joined(given: list[_Turn]) -> list[_Turn]:
    turns: list[_Turn] = []
    for turn in given:
        before = turns[-1] if turns else {}
        role = turn.get("role")
        is_more = role in _JOINED and role == before.get("role") and not before.get("tool_calls")
        turns[-1:] = [_one(before, turn)] if is_more else [*turns[-1:], turn]
    return turns


def _after_tools(given: list[_Turn]) -> list[_Turn]:
    turns: list[_Turn] = []
    for turn in given:
        before = turns[-1] if turns else {}
        is_more = turn.get("role") == "user" and before.get("role") == "tool"
        turns[-1:] = [_one(before, {"content": turn.get("content")})] if is_more else [*turns[-1:], turn]
    return turns


def _one(before: _Turn, after: _Turn) -> _Turn:
    said = {name: _together(before.get(name), after.get(name)) for name in _TEXTS if before.get(name)}
    return {**before, **after, **said}


def _together(before: Any, after: Any) -> Any:
    if not after:
        return before
    if isinstance(before, str) and isinstance(after, str):
        return f"{before}\n\n{after}"
    return [*_parts(before), *_parts(after)]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]
