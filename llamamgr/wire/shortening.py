"""A conversation that is longer than the context, without its oldest turns.

Ollama's ``truncate`` and OpenAI's ``truncation: auto`` ask for it; facts: their documentation.
"""

from __future__ import annotations

import re

import msgspec

from llamamgr.wire.neutral import ChatRequest, Message

_SHARE_OF_PROMPT = 0.75  # of the context; the rest is left for the answer
_MARKS = 16  # characters that a template writes around a turn, or so
# the engine's words for a prompt that is longer than a slot's context
TOO_LONG = re.compile(r"\((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")


def shortened(request: ChatRequest, refusal: str) -> ChatRequest | None:
    """Without the oldest messages, as many as the engine's ``refusal`` of a too long prompt tells; None when none can go.

    System messages and the last one stay; a result does not stay without the call of its tool, unless it is the last.
    """
    told = TOO_LONG.search(refusal)
    if told is None:
        return None
    turns = [message for message in request.messages if isinstance(message, Message)]
    tokens, room = int(told[1]), int(told[2]) * _SHARE_OF_PROMPT
    excess = sum(map(_weight, turns)) * max(0.0, tokens - room) / max(1, tokens)
    going: set[int] = set()
    for index, turn in enumerate(turns[:-1]):
        if turn.role == "system":
            continue
        if going and excess <= 0 and turn.role != "tool":
            break
        going.add(index)
        excess -= _weight(turn)
    if not going:
        return None
    kept = tuple(turn for index, turn in enumerate(turns) if index not in going)
    return msgspec.structs.replace(request, messages=kept)


def _weight(turn: Message) -> int:
    """Of a turn in a prompt, in characters or so; one without words has its marks, or cutting many of them would never end."""
    calls = sum(len(call.name) + len(call.arguments) for call in turn.tool_calls)
    return _MARKS + len(turn.content) + len(turn.thinking) + calls
