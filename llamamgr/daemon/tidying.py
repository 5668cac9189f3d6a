"""What the daemon itself takes: its memory after a burst of work, its log on the disk."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

from llamamgr.host.memory import resident, trim

_INTERVAL = 5.0
_GROWTH = 2 * 1024 * 1024
_LOOK_AT_LOG = 60.0
_LOG_BYTES = 20 * 1024 * 1024
_OUTPUTS = (1, 2)


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


async def keep_log_short(log: Path) -> None:
    """Begin the daemon's log anew when it has grown long, as that of a child is; the one before it is kept. Until cancelled."""
    while True:
        await asyncio.to_thread(rotate, log)
        await asyncio.sleep(_LOOK_AT_LOG)


def rotate(log: Path, most: int = _LOG_BYTES) -> bool:
    """True when ``log`` had more than ``most`` bytes and was begun anew; only if it is where this process's output goes."""
    try:
        found = log.stat()
    except FileNotFoundError:
        return False
    mine = [number for number in _OUTPUTS if os.path.samestat(os.fstat(number), found)]
    if found.st_size <= most or not mine:
        return False
    log.replace(log.with_name(f"{log.name}.1"))
    anew = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in mine:
        os.dup2(anew, number)
    os.close(anew)
    return True
