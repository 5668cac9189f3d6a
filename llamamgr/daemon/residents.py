"""Models that are loaded without being asked for: pinned and preloaded ones, companions, the default model when idle.

=============  ==========================================================  =========================================
``pin``        loaded again whenever it is gone, until somebody unloads    others make way for it
               it; a request brings it back
``preload``    loaded once                                                 only where there is room
companions     of a group that is not exclusive: each once, while any of   only where there is room
               the group is loaded
default model  whenever nothing is loaded                                  only where there is room
=============  ==========================================================  =========================================
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator

import msgspec

from llamamgr.core.config import Config
from llamamgr.core.errors import LlamamgrError
from llamamgr.models.index import Index
from llamamgr.supervise.supervisor import Supervisor

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_LONGEST_PAUSE = 300.0
_LASTING = 60.0  # a model loaded for so long was loaded well


class _Care(msgspec.Struct):
    """One model: its full name and how often somebody had wanted it gone when it was last seen loaded; when it was tried, and how
    long the next try waits; whether it was said that it cannot be.
    """

    model: str = ""
    dismissed: int = 0
    tried: float = -math.inf
    pause: float = 0.0
    is_told: bool = False


class Residents:
    """One task that looks every two seconds. What cannot be loaded is said once and tried again, ever less often."""

    def __init__(self, supervisor: Supervisor, index: Index, config: Config) -> None:
        self._supervisor = supervisor
        self._index = index
        self.config = config
        self._care: dict[str, _Care] = {}
        self._had: dict[str, set[str]] = {}  # by group: those it has had since its first was loaded
        self._loading: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        clock = asyncio.get_running_loop().time
        async with asyncio.TaskGroup() as tasks:
            while True:
                for name, modest in self.due(clock()).items():
                    tasks.create_task(self.load(name, modest=modest), name=f"keeping {name} loaded")
                await asyncio.sleep(_LOOK_SECONDS)

    def due(self, now: float) -> dict[str, bool]:
        """What is to be loaded now, and whether only where there is room. ``now`` is any one monotonic clock's."""
        loaded = {
            child.model.name.lower(): child.model.name
            for child in self._supervisor.status()
            if child.state != "stopping"
        }
        found: dict[str, bool] = {}
        for name, modest in self._wanted(loaded):
            care = self._care.setdefault(name, _Care())
            if name not in self._loading and now - care.tried >= care.pause:
                care.tried, care.pause = now, min(_LONGEST_PAUSE, max(_LOOK_SECONDS, 2 * care.pause))
                found[name] = found.get(name, True) and modest
        for name, care in self._care.items():
            if (model := _loaded_as(name, loaded)) and now - care.tried > _LASTING:
                care.pause, care.is_told = 0.0, False
            if model:
                care.model, care.dismissed = model, self._dismissals(model)
        return found

    async def load(self, name: str, *, modest: bool) -> None:
        """Load it now; why it cannot be is logged, once."""
        care = self._care.setdefault(name, _Care())
        self._loading.add(name)
        try:
            model = await asyncio.to_thread(self._index.resolve, name)
            async with self._supervisor.acquire(model, modest=modest):
                care.model, care.dismissed = model.name, self._dismissals(model.name)
        except (LlamamgrError, OSError) as error:
            told = error.what if isinstance(error, LlamamgrError) else str(error)
            if not care.is_told:
                log.warning("%s cannot be loaded now, which is tried again: %s", name, told)
            care.is_told = True
        finally:
            self._loading.discard(name)

    def _wanted(self, loaded: dict[str, str]) -> Iterator[tuple[str, bool]]:
        """What should be loaded and is not, and whether only where there is room."""
        config = self.config
        for name, table in config.models.items():
            care = self._care.setdefault(name, _Care())
            if _loaded_as(name, loaded):
                continue
            if table.pin and (not care.model or self._dismissals(care.model) == care.dismissed):
                yield name, False
            elif table.preload and not table.pin and not care.model:
                yield name, True
        for title, group in config.groups.items():
            members = () if group.exclusive else group.models
            here = {name for name in members if _loaded_as(name, loaded)}
            self._had[title] = self._had.get(title, set()) | here if here else set()
            if here:
                yield from ((name, True) for name in members if name not in self._had[title])
        if config.default_model and not loaded:
            yield config.default_model, True

    def _dismissals(self, model: str) -> int:
        """How often somebody wanted it gone."""
        unloads = self._supervisor.tally.of(model).unloads
        return unloads["asked"] + unloads["forced"]


def _loaded_as(name: str, loaded: dict[str, str]) -> str:
    """The full name of the model ``name`` stands for, if it is among those loaded; else ""."""
    name = name.lower()
    return loaded.get(name, "") or next(
        (full for lower, full in loaded.items() if lower.rpartition(":")[0] == name), ""
    )
