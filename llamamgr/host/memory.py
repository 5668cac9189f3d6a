"""How much memory the machine has free, and how much a process takes."""

from __future__ import annotations

import contextlib
import sys

import psutil

# glibc's mallopt: what is freed above this size goes back to the system at once, in its own mapping or from the heap's end
_GIVEN_BACK = 128 * 1024
_seen: dict[str, int] = {}
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def give_back_what_is_freed() -> None:
    """Keep this process as small as what it holds; once, early.

    By default glibc raises both of its thresholds to the largest block that was ever freed: after one request with a picture of
    20 MB, as much stays with the process for ever, and each thread has a heap of its own besides. Nothing happens where another
    C library runs.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in (
            (_TRIM_THRESHOLD, _GIVEN_BACK),
            (_MMAP_THRESHOLD, _GIVEN_BACK),
            (_ARENA_MAX, 1),
        ):
            mallopt(option, value)


def trim() -> None:
    """Give the free pages of this process's heap back to the system, where the C library can."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def available() -> int:
    """Bytes that new processes can have without swapping; what it was the last time where the system does not say (no descriptor
    is left to read it with).
    """
    try:
        _seen["available"] = int(psutil.virtual_memory().available)
    except OSError:
        pass
    return _seen.get("available", 0)


def resident(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone."""
    if pid <= 0:
        return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except (psutil.Error, OSError):
        return 0


def unshared(pid: int) -> int:
    """Resident bytes of a process that would be free without it: mapped files are counted as available memory already.

    Where the system does not tell them apart, all its resident bytes; 0 when it is gone.
    """
    if pid <= 0:
        return 0
    try:
        info = psutil.Process(pid).memory_info()
    except (psutil.Error, OSError):
        return 0
    return int(info.rss) - int(getattr(info, "shared", 0))
