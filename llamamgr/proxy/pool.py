"""Connections to children that wait for their next request.

llama-server closes a connection after 100 requests and after 5 idle seconds (source: cpp-httplib's defaults), so one that is kept
may be found closed at the moment it is used. Only requests that may be sent twice are therefore sent over one, and none is kept
for more than about a second: a kept connection holds a thread of the engine.
"""

from __future__ import annotations

import asyncio
import time

from llamamgr.proxy.connection import Connection
from llamamgr.supervise.lease import Endpoint

IDLE_SECONDS = 1.0
_MOST = 64  # for each child


class Pool:
    """Empty connections by endpoint; those used last are used next. ``close`` it in its loop."""

    def __init__(self) -> None:
        self._idle: dict[Endpoint, list[tuple[float, Connection]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self, endpoint: Endpoint) -> Connection | None:
        """A connection that was still open when it was last heard of."""
        kept = self._idle.get(endpoint)
        while kept:
            connection = kept.pop()[1]
            if connection.is_reusable:
                return connection
            connection.abort()
        return None

    def give(self, endpoint: Endpoint, connection: Connection) -> None:
        """Keep a connection whose answer is complete, or close it."""
        kept = self._idle.setdefault(endpoint, [])
        if self._closed or len(kept) >= _MOST or not connection.is_reusable:
            connection.abort()
            return
        kept.append((time.monotonic(), connection))
        if self._timer is None:  # asking for the loop costs a system call
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._sweep)

    def forget(self, endpoint: Endpoint) -> None:
        """Close what is kept to a child that is about to stop."""
        for _, connection in self._idle.pop(endpoint, ()):
            connection.abort()

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for endpoint in list(self._idle):
            self.forget(endpoint)

    def _sweep(self) -> None:
        """Close what has been idle for too long; the oldest come first."""
        before = time.monotonic() - IDLE_SECONDS
        for endpoint, kept in list(self._idle.items()):
            old = next((place for place, (since, _) in enumerate(kept) if since > before), len(kept))
            for _, connection in kept[:old]:
                connection.abort()
            del kept[:old]
            if not kept:
                del self._idle[endpoint]
        self._timer = None
        if self._idle:
            self._timer = asyncio.get_running_loop().call_later(IDLE_SECONDS / 2, self._sweep)
