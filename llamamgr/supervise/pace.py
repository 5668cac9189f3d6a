"""How fast the answers of one child come: tokens per second of one answer.

While it works that is seen by its watch (``plan.progress``); answers shorter than a look are known by the engine's own totals
(``/metrics``: tokens given, and the seconds they took), which it counts when an answer ends.
"""

from __future__ import annotations

from llamamgr.plan.progress import Progress
from llamamgr.supervise.lease import Endpoint
from llamamgr.supervise.probe import figures

_DEADLINE = 1.0


class Pace:
    """``looked`` is when the totals were last asked for, on the loop's clock."""

    def __init__(self, progress: Progress) -> None:
        self.looked = 0.0
        self._progress = progress
        self._tokens = 0.0
        self._seconds = 0.0
        self._counted = 0.0

    def value(self, *, busy: bool) -> float:
        """The pace of now where it is ``busy``, else that of its last answers; 0.0 = not known."""
        seen = self._progress.pace
        return (seen or self._counted) if busy else (self._counted or seen)

    async def look(self, endpoint: Endpoint, now: float) -> None:
        """Ask for the totals, and take in what was added since the last time."""
        self.looked = now
        told = await figures(endpoint, _DEADLINE)
        tokens, seconds = (
            told.get("tokens_predicted_total", 0.0),
            told.get("tokens_predicted_seconds_total", 0.0),
        )
        if tokens > self._tokens and seconds > self._seconds:
            self._counted = (tokens - self._tokens) / (seconds - self._seconds)
            self._tokens, self._seconds = tokens, seconds
