"""The daemon's own memory after a burst of work."""

from __future__ import annotations

import asyncio
import gc
import os

from llamamgr.host.memory import resident, trim

_INTERVAL = 5.0
_GROWTH = 2 * 1024 * 1024


def set_aside_what_is_loaded() -> None:
    """Keep the collector away from modules and classes, which live as long as the process; once, before anything is served.

    It would look at them again and again, 20 ms each time, while everything waits.
    """
    gc.collect()
    gc.freeze()


async def keep_small() -> None:
    """Give back what lies free in the heap while the process is larger than it need be; until cancelled.

    Many streams at once leave rings of dead objects, which the collector finds late, and holes between what lives on, which the C
    library keeps; either takes about a millisecond to mend.
    """
    smallest = 0  # what starting left is given back at once
    while True:
        if resident(os.getpid()) > smallest + _GROWTH:
            gc.collect()
            await asyncio.to_thread(trim)
            now = resident(os.getpid())
            smallest = min(now, smallest or now)  # what is held in the middle of work is no measure
        await asyncio.sleep(_INTERVAL)
