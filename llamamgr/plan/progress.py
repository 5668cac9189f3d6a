"""What the slots of one child did between two looks: how fast answers come, and which of them has come to a halt alone.

A slot is *stuck* when it gave tokens before, has given none for ``quiet`` seconds and for ``intervals`` times as long as its tokens
usually take, while another slot of the same child gave ``others``. All slots share each step of the engine, so one that works keeps
up with the rest. A slot that has given nothing yet is not judged: it may be reading a long prompt, or waiting for another to read
the same one. Nor is a child all of whose slots stand still: that may be one long step, and has a limit of its own
(``scheduler.stall_wait``).

Times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec


class Rules(msgspec.Struct, frozen=True):
    quiet: float = 30.0
    intervals: float = 50.0
    others: int = 50


class SlotSeen(msgspec.Struct, frozen=True):
    """A slot that is working on ``task`` and has given ``decoded`` tokens of its answer so far."""

    id: int
    task: int
    decoded: int


class _Slot(msgspec.Struct):
    """``given`` are the tokens that each slot had given in all when this one last moved."""

    task: int
    decoded: int
    begun: float
    begun_at: int
    moved: float
    given: Mapping[int, int]

    @property
    def interval(self) -> float:
        """Seconds that a token usually takes; 0.0 while that is not known."""
        tokens = self.decoded - self.begun_at
        return (self.moved - self.begun) / tokens if tokens else 0.0


class Progress:
    """Call ``saw`` with each look at the slots that work; ``pace`` is tokens per second of one answer, 0.0 = not known yet."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.pace = 0.0
        self._slots: dict[int, _Slot] = {}
        self._given: dict[int, int] = {}
        self._looked = 0.0

    def saw(self, working: Iterable[SlotSeen], now: float) -> None:
        """Take one look in."""
        rows = list(working)
        gains = {row.id: self._gain(row) for row in rows}
        self._given = {
            slot: self._given.get(slot, 0) + gains.get(slot, 0) for slot in self._given.keys() | gains.keys()
        }
        self._measure([gain for row in rows if (gain := gains[row.id]) and self._is_known(row)], now)
        self._slots = {row.id: self._after(row, gains[row.id], now) for row in rows}
        self._looked = now

    def stuck(self, now: float) -> frozenset[int]:
        """The slots that have come to a halt while others go on."""
        return frozenset(number for number, slot in self._slots.items() if self._is_stuck(number, slot, now))

    def rest(self) -> None:
        """Nothing works any more: what was seen says nothing of what comes."""
        self._slots, self._given, self._looked = {}, {}, 0.0

    def _is_known(self, row: SlotSeen) -> bool:
        known = self._slots.get(row.id)
        return known is not None and known.task == row.task

    def _gain(self, row: SlotSeen) -> int:
        """Tokens since the last look."""
        return max(0, row.decoded - (self._slots[row.id].decoded if self._is_known(row) else 0))

    def _measure(self, gains: list[int], now: float) -> None:
        if gains and now > self._looked > 0.0:
            self.pace = sum(gains) / len(gains) / (now - self._looked)

    def _after(self, row: SlotSeen, gain: int, now: float) -> _Slot:
        if not self._is_known(row):
            return _Slot(row.task, row.decoded, now, row.decoded, now, self._given)
        slot = self._slots[row.id]
        if gain:
            slot.decoded, slot.moved, slot.given = row.decoded, now, self._given
        return slot

    def _is_stuck(self, number: int, slot: _Slot, now: float) -> bool:
        rules = self.rules
        if not slot.decoded or now - slot.moved < max(rules.quiet, rules.intervals * slot.interval):
            return False
        return any(
            given - slot.given.get(other, 0) >= rules.others
            for other, given in self._given.items()
            if other != number
        )
