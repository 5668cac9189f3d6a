"""When a new build is on trial: if its children keep crashing in its first minutes and the former's did not, go back.

A crash while serving always counts. A load that failed counts only for a model that the former build is known to have loaded:
otherwise it says more about the model. Times are seconds on one monotonic clock.
"""

from __future__ import annotations

import msgspec


class Rules(msgspec.Struct, frozen=True):
    """``crashes`` within the first ``period`` seconds of a build end its trial badly."""

    crashes: int = 3
    period: float = 600.0


class Crash(msgspec.Struct, frozen=True):
    build: str
    model: str
    at: float


class Trials:
    """What builds did so far. A build's trial begins with its first child and lasts ``Rules.period``."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self._since: dict[str, float] = {}
        self._crashes: list[Crash] = []

    def started(self, build: str, now: float) -> None:
        """A child of ``build`` was started."""
        self._since.setdefault(build, now)

    def crashed(self, build: str, model: str, now: float, former: str) -> bool:
        """Note a crash that counts; True when ``build`` should give way to ``former`` ("" = there is none to go back to)."""
        self._crashes = [crash for crash in self._crashes if now - crash.at <= self.rules.period]
        self._crashes.append(Crash(build, model, now))
        since = self._since.get(build, now)
        if not former or now - since > self.rules.period:
            return False
        blamed = {crash.model for crash in self._crashes if crash.build == former}
        counted = [c for c in self._crashes if c.build == build and c.model not in blamed]
        return len(counted) >= self.rules.crashes

    def forget(self, build: str) -> None:
        """``build`` was given up: should it come back, it starts anew."""
        self._since.pop(build, None)
        self._crashes = [crash for crash in self._crashes if crash.build != build]
