"""What happened to an instance: which build became current when and why, and which builds are known to be bad.

Both stand in ``<instance>/history.toml``, outside the build folders, which never change. The file is replaced as a whole by rename,
*after* the ``current`` link was swapped: a crash in between loses a line of history, never the truth about what is current. Reading
is tolerant; an instance without the file has no history.

The builds that were current form a stack: installing, updating and choosing push, going back cuts. So going back twice goes back
two builds, not there and back again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from llamamgr.core.errors import ConfigError
from llamamgr.host.files import read_toml, write_atomic

Why = Literal["install", "update", "rollback", "use", "fallback", "link"]

FILE = "history.toml"
_KEPT = 200  # events; far more than there are builds


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """``build`` became current at ``at`` (seconds since the epoch); ``reason`` is for people."""

    build: str
    why: Why
    at: float
    reason: str = ""


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """``build`` proved bad at ``at``, because of ``reason``: not to be chosen again without being asked for by name."""

    build: str
    reason: str
    at: float


class Ledger(msgspec.Struct, frozen=True, omit_defaults=True):
    """All events, oldest first, and all marks."""

    events: tuple[Event, ...] = ()
    marks: tuple[Mark, ...] = ()

    def mark(self, build_id: str) -> Mark | None:
        """The mark of a bad build; None for one that nothing is said against."""
        return next((mark for mark in self.marks if mark.build == build_id), None)

    def stack(self, current: str) -> tuple[str, ...]:
        """The builds that led to ``current``, which is the last; builds that are gone are among them."""
        trail: list[str] = []
        for event in self.events:
            _step(trail, event.build)
        if current:
            _step(trail, current)
        return tuple(trail)

    def arrival(self, current: str) -> Event | None:
        """How the build that is current came to be it."""
        last = self.events[-1] if self.events else None
        return last if last is not None and last.build == current else None

    def with_event(self, event: Event) -> Ledger:
        return Ledger((*self.events, event)[-_KEPT:], self.marks)

    def with_mark(self, mark: Mark) -> Ledger:
        return Ledger(self.events, (*(other for other in self.marks if other.build != mark.build), mark))

    def forgetting(self, builds: Iterable[str]) -> Ledger:
        """Without the marks of ``builds``: they were removed, or somebody wants them in spite of it."""
        gone = frozenset(builds)
        return Ledger(self.events, tuple(mark for mark in self.marks if mark.build not in gone))


def read_ledger(folder: Path) -> Ledger:
    """The ledger of the instance in ``folder``; an empty one when there is none or it cannot be read."""
    try:
        return msgspec.convert(read_toml(folder / FILE), Ledger)
    except (ConfigError, msgspec.ValidationError, OSError):
        return Ledger()


def write_ledger(folder: Path, ledger: Ledger) -> None:
    import tomli_w

    data: dict[str, Any] = msgspec.to_builtins(ledger)
    write_atomic(folder / FILE, tomli_w.dumps(data))


def _step(trail: list[str], build: str) -> None:
    """A build that is in the trail was gone back to; any other one is new."""
    if build in trail:
        del trail[trail.index(build) + 1 :]
    else:
        trail.append(build)
