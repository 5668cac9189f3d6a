"""Answers of ``/v1/responses`` that are remembered: to go on from, and as what references to their items mean.

Bounded in number and in bytes; the one that was asked for longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from llamamgr.wire.neutral import Message
from llamamgr.wire.responses_stored import Stored


class Remembered(msgspec.Struct, frozen=True):
    """One answer: its response object as JSON, and the conversation up to and with it, without instructions.

    ``owner`` tells the API key it was given to, "" for none: nobody else gets at it. ``model`` is the name that was
    asked for. ``items`` are all that the answer was made of, what came before included, and ``outputs`` those it gave.
    """

    response: bytes
    turns: tuple[Message, ...]
    owner: str = ""
    model: str = ""
    items: tuple[Stored, ...] = ()
    outputs: tuple[Stored, ...] = ()

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        listed = sum(200 + len(item.data) for item in self.all_items)
        return len(self.response) + sum(_size(turn) for turn in self.turns) + listed

    @property
    def all_items(self) -> tuple[Stored, ...]:
        """The conversation up to and with this answer."""
        return self.items + self.outputs


class Memory:
    """Keeps at most ``most`` answers and ``limit`` bytes. Turns and items that two answers share are counted twice."""

    def __init__(self, most: int = 512, limit: int = 64 * 1024 * 1024) -> None:
        self._most = most
        self._limit = limit
        self._size = 0
        self._known: OrderedDict[str, Remembered] = OrderedDict()
        # by owner and id: an item, and how many answers it stands in
        self._items: dict[tuple[str, str], tuple[Stored, int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, id: str, owner: str = "") -> Remembered | None:  # noqa: A002 - the field's name
        """The answer of that id that is ``owner``'s, or None when there is none (any more)."""
        found = self._known.get(id)
        if found is None or found.owner != owner:
            return None
        self._known.move_to_end(id)
        return found

    def item(self, id: str, owner: str = "") -> bytes | None:  # noqa: A002 - the field's name
        """The JSON of the item of that id in an answer that is ``owner``'s, or None."""
        found = self._items.get((owner, id))
        return found[0].data if found is not None else None

    def keep(self, id: str, answer: Remembered) -> None:  # noqa: A002 - the field's name
        """Remember ``answer``; one that is larger than everything may be is not."""
        self.forget(id)
        if answer.size > self._limit:
            return
        self._known[id] = answer
        self._size += answer.size
        for item in answer.all_items:
            self._items[answer.owner, item.id] = (item, self._mentions(answer.owner, item.id) + 1)
        while len(self._known) > self._most or self._size > self._limit:
            self._let_go(self._known.popitem(last=False)[1])

    def forget(self, id: str) -> bool:  # noqa: A002 - the field's name
        """False when it was not known."""
        found = self._known.pop(id, None)
        if found is None:
            return False
        self._let_go(found)
        return True

    def _let_go(self, answer: Remembered) -> None:
        self._size -= answer.size
        for item in answer.all_items:
            place = (answer.owner, item.id)
            left = self._mentions(*place) - 1
            if left:
                self._items[place] = (self._items[place][0], left)
            else:
                del self._items[place]

    def _mentions(self, owner: str, id: str) -> int:  # noqa: A002 - the field's name
        return self._items[owner, id][1] if (owner, id) in self._items else 0


def _size(turn: Message) -> int:
    media = sum(len(part.data) if hasattr(part, "data") else len(part.text) for part in turn.parts)
    calls = sum(len(call.arguments) + len(call.name) for call in turn.tool_calls)
    return 200 + len(turn.content) + len(turn.thinking) + media + calls + sum(map(len, turn.images))
