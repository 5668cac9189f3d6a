"""What has happened since the daemon began, counted: plain numbers, read by ``/metrics``.

Everything is kept by model name. Only names of the index come here, so what clients send does not choose how much is kept; and
beyond ``MOST_MODELS`` names the rest shares one record.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from llamamgr.core.histogram import LOADING, Histogram
from llamamgr.plan.events import REPLACED

MOST_MODELS = 1000
THE_REST = "other"
# the plan's words for why a child is stopped → one word
_UNLOADS = {
    "another model needs its memory": "evicted",
    "its keep-alive ran out": "expired",
    "its ttl ran out": "expired",
    "its settings changed": "reconfigured",
    REPLACED: "replaced",
    "the model was asked for with other options": "replaced",
    "somebody wants it gone": "asked",
    "somebody wants it gone at once": "forced",
    "one of its slots is stuck": "stuck",
}
# what a cause of death contains → one word; the first that fits
_CAUSES = (
    ("was not ready after", "load_timeout"),
    ("stopped answering /health", "hung"),
    ("slots moved", "stalled"),
    ("its log says", "device_lost"),
    ("could not be", "not_started"),
    ("was killed by", "signal"),
    ("exited with code", "exit"),
)


class Tokens(msgspec.Struct):
    """Tokens of finished answers: of their prompts, of those the cached ones, and generated."""

    prompt: int = 0
    cached: int = 0
    generated: int = 0

    def add(self, prompt: int, cached: int, generated: int) -> None:
        self.prompt += prompt
        self.cached += cached
        self.generated += generated


class ModelTally(msgspec.Struct):
    """One model. ``failures`` are by (``load`` or ``run``, cause), ``unloads`` by reason; ``crashed``: the last child failed."""

    tokens: Tokens = msgspec.field(default_factory=Tokens)
    starts: int = 0
    restarts: int = 0
    failures: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    unloads: Counter[str] = msgspec.field(default_factory=Counter)
    load_seconds: Histogram = msgspec.field(default_factory=lambda: Histogram(LOADING))
    wait_seconds: Histogram = msgspec.field(default_factory=Histogram)
    crashed: bool = False

    def started(self) -> None:
        self.starts += 1
        self.restarts += self.crashed
        self.crashed = False

    def failed(self, cause: str, *, loading: bool) -> None:
        self.failures["load" if loading else "run", kind_of(cause)] += 1
        self.crashed = True


class Tally:
    """All of it. ``waiting`` is how many requests wait for a lease now, ``refusals`` are by the plan's reason."""

    def __init__(self) -> None:
        self.models: dict[str, ModelTally] = {}
        self.refusals: Counter[str] = Counter()
        self.waiting = 0

    def of(self, model: str) -> ModelTally:
        """The record of the model of that name, made at first use."""
        known = self.models.get(model)
        if known is None:
            name = model if len(self.models) < MOST_MODELS else THE_REST
            known = self.models.setdefault(name, ModelTally())
        return known


def kind_of(cause: str) -> str:
    """One word for a cause of death."""
    return next((kind for said, kind in _CAUSES if said in cause), "other")


def reason_of(why: str) -> str:
    """One word for why the plan stops a child."""
    return _UNLOADS.get(why, "other")
