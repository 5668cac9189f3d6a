"""The daemon's own memory after a burst of work."""

from __future__ import annotations

import asyncio
import os

from llamamgr.host.memory import resident, trim

_INTERVAL = 5.0
_GROWTH = 2 * 1024 * 1024


async def keep_small() -> None:
    """Give back what lies free in the heap while the process is larger than it need be; until cancelled.

    Many streams at once leave holes between what lives on, which the C library keeps; giving them back takes a millisecond.
    """
    smallest = 0  # what starting left is given back at once
    while True:
        if resident(os.getpid()) > smallest + _GROWTH:
            await asyncio.to_thread(trim)
            now = resident(os.getpid())
            smallest = min(now, smallest or now)  # what is held in the middle of work is no measure
        await asyncio.sleep(_INTERVAL)
