"""Answers of ``/v1/responses`` that are remembered, so that ``previous_response_id`` can go on from them.

Bounded in number and in bytes; the one that was asked for longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from llamamgr.wire.neutral import Message


class Remembered(msgspec.Struct, frozen=True):
    """One answer: its response object as JSON, and the conversation up to and with it, without instructions.

    ``owner`` is the name of the API key it was given to, "" for none: nobody else gets at it.
    """

    response: bytes
    turns: tuple[Message, ...]
    owner: str = ""

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.response) + sum(_size(turn) for turn in self.turns)


class Memory:
    """Keeps at most ``most`` answers and ``limit`` bytes. Turns that two answers share are counted twice."""

    def __init__(self, most: int = 512, limit: int = 64 * 1024 * 1024) -> None:
        self._most = most
        self._limit = limit
        self._size = 0
        self._known: OrderedDict[str, Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, id: str, owner: str = "") -> Remembered | None:  # noqa: A002 - the field's name
        """The answer of that id that is ``owner``'s, or None when there is none (any more)."""
        found = self._known.get(id)
        if found is None or found.owner != owner:
            return None
        self._known.move_to_end(id)
        return found

    def keep(self, id: str, answer: Remembered) -> None:  # noqa: A002 - the field's name
        """Remember ``answer``; one that is larger than everything may be is not."""
        self.forget(id)
        self._known[id] = answer
        self._size += answer.size
        while self._known and (len(self._known) > self._most or self._size > self._limit):
            self._size -= self._known.popitem(last=False)[1].size

    def forget(self, id: str) -> bool:  # noqa: A002 - the field's name
        """False when it was not known."""
        found = self._known.pop(id, None)
        if found is None:
            return False
        self._size -= found.size
        return True


def _size(turn: Message) -> int:
    media = sum(len(part.data) if hasattr(part, "data") else len(part.text) for part in turn.parts)
    calls = sum(len(call.arguments) + len(call.name) for call in turn.tool_calls)
    return 200 + len(turn.content) + len(turn.thinking) + media + calls + sum(map(len, turn.images))
