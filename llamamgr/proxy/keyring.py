"""The API keys in force, and what each of them is doing now."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable

from llamamgr.core.keys import Bucket, Key, Rate, draw, owner_of
from llamamgr.wire.errors import DialectError

_AT_ONCE_AGAIN = 1  # seconds: when a request of this key may be over


class Keyring:
    """``clock`` is monotonic seconds, ``now`` seconds since the epoch. Limits are counted by secret, whatever else changes."""

    def __init__(
        self,
        keys: Iterable[Key] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._now = now
        self._buckets: dict[str, Bucket] = {}
        self._running: Counter[str] = Counter()
        self.replace(keys)

    def replace(self, keys: Iterable[Key]) -> None:
        """``keys`` are in force for every request from now on; those that run already end as they began."""
        self._keys = tuple(keys)
        self.is_empty = not self._keys
        self._rates = {key.hash: Rate.parse(key.rate) for key in self._keys if key.rate}
        known = {key.hash for key in self._keys}
        self._buckets = {hash_: bucket for hash_, bucket in self._buckets.items() if hash_ in known}

    @property
    def keys(self) -> tuple[Key, ...]:
        return self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def owner(self, secrets: Iterable[str]) -> Key | None:
        """The key of the first of ``secrets`` that is known, expired or not."""
        for secret in secrets:
            key = owner_of(secret, self._keys)
            if key is not None:
                return key
        return None

    def has_expired(self, key: Key) -> bool:
        return key.has_expired(self._now())

    def enter(self, key: Key) -> None:
        """One request of ``key`` begins, and must ``leave``; ``DialectError`` 429 when it is one too many."""
        if key.parallel and self._running[key.hash] >= key.parallel:
            raise _too_many(key, f"{key.parallel} at once", _AT_ONCE_AGAIN)
        if key.rate:
            self._draw(key)
        self._running[key.hash] += 1

    def leave(self, key: Key) -> None:
        self._running[key.hash] -= 1
        if not self._running[key.hash]:
            del self._running[key.hash]

    def _draw(self, key: Key) -> None:
        bucket, wait = draw(self._buckets.get(key.hash), self._rates[key.hash], self._clock())
        self._buckets[key.hash] = bucket
        if wait:
            raise _too_many(key, key.rate, math.ceil(wait))


def _too_many(key: Key, limit: str, retry_after: int) -> DialectError:
    message = f"too many requests: the API key {key.name!r} is limited to {limit}"
    return DialectError(429, message, code="rate_limit_exceeded", retry_after=retry_after)
