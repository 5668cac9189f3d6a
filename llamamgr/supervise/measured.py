"""What children really took, remembered across daemons: the best estimate of what they will take next time.

One record for each (model, build, shape); the file is JSON in the state folder, rewritten by rename, newest records last.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from llamamgr.core.cards import Build, ModelCard
from llamamgr.host.files import replace_quickly
from llamamgr.plan.memory import Shape

_KEPT = 1000


class Record(msgspec.Struct, frozen=True):
    """``memory`` is the highest resident size seen, in bytes; ``load_seconds`` the last time from start to ready."""

    memory: int
    load_seconds: float


class Measured:
    """All records; a missing or broken file counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = _read(path)

    def record(self, model: ModelCard, build: Build, shape: Shape) -> Record | None:
        return self._records.get(_key(model, build, shape))

    def has_loaded(self, model: ModelCard, build: str) -> bool:
        """``model`` became ready on ``build`` (its key) at least once."""
        return any(key.startswith(f"{model.digest} {build} ") for key in self._records)

    def note(self, model: ModelCard, build: Build, shape: Shape, memory: int, load_seconds: float) -> None:
        """Take a measurement in; memory only grows, since a child's cache fills with use."""
        key = _key(model, build, shape)
        former = self._records.pop(key, None)
        self._records[key] = Record(max(memory, former.memory if former else 0), load_seconds)
        while len(self._records) > _KEPT:
            del self._records[next(iter(self._records))]

    def save(self) -> None:
        """Write the file; a disk that takes nothing costs the memory of it only."""
        with contextlib.suppress(OSError):
            replace_quickly(self._path, msgspec.json.encode(self._records), 0o600)


def _read(path: Path) -> dict[str, Record]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Record])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _key(model: ModelCard, build: Build, shape: Shape) -> str:
    return f"{model.digest} {build.key} {shape.context}x{shape.parallel}"
