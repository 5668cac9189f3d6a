"""Moments as Ollama writes them: RFC 3339 with nanoseconds, in UTC; and as HTTP does."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from email.utils import formatdate

# Go adds the longest duration it has (2^63 ns) for a model that is kept for ever; clients parse the year 2318 it gives
LONGEST_SECONDS = (2**63 - 1) / 1e9


def rfc3339(nanoseconds: int) -> str:
    """Of a time since the epoch."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


def expiry(seconds: float, now: int) -> str:
    """Of a child's expiry in seconds since the epoch, infinity included; ``now`` is nanoseconds."""
    return rfc3339(int(min(seconds, now / 1e9 + LONGEST_SECONDS) * 1e9))


def http_date() -> str:
    """Now, for a ``Date`` header; made once a second."""
    return _http_date(int(time.time()))


@functools.lru_cache(maxsize=1)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


class Stamps:
    """The time now, for one line per token: what changes once a second is made once a second."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._second = -1
        self._prefix = ""

    def __call__(self) -> str:
        seconds, fraction = divmod(self._clock(), 10**9)
        if seconds != self._second:
            self._second = seconds
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f"{self._prefix}.{fraction:09d}Z"
