"""How late the event loop is: the one number that tells whether something blocks it."""

from __future__ import annotations

import asyncio
from collections import deque

_INTERVAL = 0.05
_KEPT = 2400  # two minutes


class LoopLag:
    """Seconds by which the loop woke up late, of the last two minutes."""

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=_KEPT)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _INTERVAL
            await asyncio.sleep(_INTERVAL)
            self._late.append(max(0.0, loop.time() - due))

    def percentile(self, share: float) -> float:
        """The lateness that ``share`` (0 to 1) of the samples do not exceed; 0.0 without samples."""
        ordered = sorted(self._late)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
