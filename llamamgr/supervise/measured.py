"""What children really took, remembered across daemons: the best estimate of what they will take next time.

One record for each (model, build, options, shape); the file is JSON in the state folder, rewritten by rename, newest records last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llamamgr.core.cards import ModelCard
from llamamgr.host.files import replace_quickly
from llamamgr.plan.events import HOST, Placement
from llamamgr.plan.memory import Shape
from llamamgr.supervise.wishes import Wish

_KEPT = 1000


class Record(msgspec.Struct, frozen=True):
    """The most that was seen, in bytes, prompt cache included as far as it was full.

    ``memory`` is the resident size of a child in main memory alone, ``whole`` what it took by device with all of it on GPUs,
    ``partly`` with a part of it. ``load_seconds`` is the last time from start to ready.
    """

    memory: int = 0
    load_seconds: float = 0.0
    whole: dict[str, int] = {}
    partly: dict[str, int] = {}


class Measured:
    """All records; a missing or broken file counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = _read(path)

    def record(self, wish: Wish, variant: str, shape: Shape | None = None) -> Record | None:
        """What a child of ``wish`` took, or would with another ``shape``; ``variant`` is its key's."""
        return self._records.get(_key(wish, variant, shape or wish.shape))

    def has_loaded(self, model: ModelCard, build: str) -> bool:
        """``model`` became ready on ``build`` (its key) at least once."""
        return any(key.startswith(f"{model.digest} {build} ") for key in self._records)

    def note(
        self, wish: Wish, variant: str, placement: Placement, taken: Mapping[str, int], load_seconds: float
    ) -> None:
        """Take a measurement in; memory only grows, since a child's cache fills with use. A GPU not told of is not known."""
        key = _key(wish, variant, wish.shape)
        former = self._records.pop(key, Record())
        self._records[key] = _grown(former, placement, taken, load_seconds)
        while len(self._records) > _KEPT:
            del self._records[next(iter(self._records))]

    def save(self) -> None:
        """Write the file; a disk that takes nothing costs the memory of it only."""
        with contextlib.suppress(OSError):
            replace_quickly(self._path, msgspec.json.encode(self._records), 0o600)


def _grown(former: Record, placement: Placement, taken: Mapping[str, int], seconds: float) -> Record:
    changed = msgspec.structs.replace(former, load_seconds=seconds)
    if not placement.gpus:
        return msgspec.structs.replace(changed, memory=max(taken.get(HOST, 0), former.memory))
    if not set(placement.gpus) <= taken.keys():
        return changed
    if placement.tier == "gpu":
        return msgspec.structs.replace(changed, whole=_larger(former.whole, taken))
    return msgspec.structs.replace(changed, partly=_larger(former.partly, taken))


def _larger(former: Mapping[str, int], taken: Mapping[str, int]) -> dict[str, int]:
    if former.keys() != taken.keys():
        return dict(taken)
    return {device: max(size, former[device]) for device, size in taken.items()}


def _read(path: Path) -> dict[str, Record]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Record])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _key(wish: Wish, variant: str, shape: Shape) -> str:
    return f"{wish.model.digest} {wish.build.key} {variant} {shape.context}x{shape.parallel}"
