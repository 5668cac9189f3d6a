"""A request while it is answered: its id, whose key it came with, and which model it is for.

Whatever runs for a request finds it here, log lines included. Outside of a request there is none, and asking for it fails: what
decides about keys must not be reached that way.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar

import msgspec

from llamamgr.core.keys import Key
from llamamgr.proxy.metrics import RouteMetrics


class Visit(msgspec.Struct):
    """``began`` is ``time.perf_counter`` when its head was read. ``key`` is None for a visitor without a known one, ``model`` ""
    until it is resolved.
    """

    id: str
    route: RouteMetrics
    began: float
    key: Key | None = None
    model: str = ""
    is_over: bool = False

    def note_first_byte(self) -> int:
        """The head of its answer is about to be written, after so many milliseconds."""
        seconds = time.perf_counter() - self.began
        self.route.first_byte.observe(seconds)
        return int(seconds * 1000)


_VISIT: ContextVar[Visit] = ContextVar("visit")


def current() -> Visit:
    """The request that is being answered; ``LookupError`` where there is none."""
    return _VISIT.get()


def visiting() -> Visit | None:
    """The request that is being answered, if there is one: for what decides nothing about keys."""
    return _VISIT.get(None)


def priority() -> int:
    """What the key of the request being answered adds to its model's priority."""
    visit = _VISIT.get(None)
    return visit.key.priority if visit is not None and visit.key is not None else 0


def owner() -> str:
    """Whose request is being answered: the hash of its key, since a name may be given to another; "" for a visitor without one."""
    key = current().key
    return key.hash if key is not None else ""


def begin(visit: Visit) -> Visit:
    """Make ``visit`` the current one in this task and in those it starts. Nothing is put back: a request has its own task."""
    _VISIT.set(visit)
    return visit


class RequestLabel(logging.Filter):
    """Gives each log record ``request``: the id of the request it was written for, in brackets and with a space, or "".

    A child outlives the request that started it; what it says afterwards belongs to none.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        visit = _VISIT.get(None)
        record.request = f"[{visit.id}] " if visit is not None and not visit.is_over else ""
        return True
