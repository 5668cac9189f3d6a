"""How much memory the machine has free, and how much a process takes."""

from __future__ import annotations

import psutil


def available() -> int:
    """Bytes that new processes can have without swapping."""
    return int(psutil.virtual_memory().available)


def resident(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone."""
    if pid <= 0:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
