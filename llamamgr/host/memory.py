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


def unshared(pid: int) -> int:
    """Resident bytes of a process that would be free without it: mapped files are counted as available memory already.

    Where the system does not tell them apart, all its resident bytes; 0 when it is gone.
    """
    if pid <= 0:
        return 0
    try:
        info = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(info.rss) - int(getattr(info, "shared", 0))
