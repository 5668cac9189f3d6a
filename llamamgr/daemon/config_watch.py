"""Reads ``config.toml`` anew when it changes on disk, where ``watch_config`` asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

LOOK_SECONDS = 2.0

# modification time, size and inode; None = there is no such file
State: TypeAlias = tuple[int, int, int] | None


class ConfigWatch:
    """Looks every ``interval`` seconds while ``is_wanted``, and calls ``reload`` once for each change of ``path``.

    A change counts when two looks see the same file: one that is being written is left to settle. Which mistakes ``reload`` meets
    it says itself; a broken file is not read again before it changes.
    """

    def __init__(
        self,
        path: Path,
        is_wanted: Callable[[], bool],
        reload: Callable[[], Awaitable[object]],
        interval: float = LOOK_SECONDS,
    ) -> None:
        self._path = path
        self._is_wanted = is_wanted
        self._reload = reload
        self._interval = interval
        self._seen = state_of(path)
        self._loaded = self._seen

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            if self._is_wanted() and await self._has_settled():
                self._loaded = self._seen
                await self._reload()

    async def _has_settled(self) -> bool:
        """True at the second look at a file that is not the one that was loaded."""
        seen = await asyncio.to_thread(state_of, self._path)
        is_same, self._seen = seen == self._seen, seen
        return is_same and seen != self._loaded


def state_of(path: Path) -> State:
    """What tells one version of a file from the next without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
