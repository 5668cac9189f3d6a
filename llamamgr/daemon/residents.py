"""Models that are loaded without being asked for: preloaded and pinned ones, companions, the default model when idle."""

from __future__ import annotations

import asyncio
import logging

from llamamgr.core.config import Config
from llamamgr.core.errors import LlamamgrError
from llamamgr.models.index import Index
from llamamgr.supervise.supervisor import Supervisor

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0


class Residents:
    """One task that looks every two seconds; a model that cannot be loaded is said once and tried again when asked for."""

    def __init__(self, supervisor: Supervisor, index: Index, config: Config) -> None:
        self._supervisor = supervisor
        self._index = index
        self.config = config
        self._tried: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for name in self._wanted():
                if name not in self._tried:
                    self._tried.add(name)
                    await self._load(name)
            await asyncio.sleep(_LOOK_SECONDS)

    def _wanted(self) -> list[str]:
        """What should be loaded now and is not."""
        loaded = {
            child.model.name.lower() for child in self._supervisor.status() if child.state != "stopping"
        }
        config = self.config
        wanted = [name for name, table in config.models.items() if table.preload or table.pin]
        for group in config.groups.values():
            if not group.exclusive and any(_is_loaded(name, loaded) for name in group.models):
                wanted += group.models
        if config.default_model and not loaded:
            self._tried.discard(config.default_model)
            wanted.append(config.default_model)
        missing = [name for name in wanted if not _is_loaded(name, loaded)]
        self._tried &= set(missing) | {n for n, t in config.models.items() if t.preload or t.pin}
        return missing

    async def _load(self, name: str) -> None:
        try:
            model = await asyncio.to_thread(self._index.resolve, name)
            async with self._supervisor.acquire(model):
                pass
        except (LlamamgrError, OSError) as error:
            told = error.what if isinstance(error, LlamamgrError) else str(error)
            log.warning("%s is not kept loaded: %s", name, told)


def _is_loaded(name: str, loaded: set[str]) -> bool:
    return name.lower() in loaded or any(other.rpartition(":")[0] == name.lower() for other in loaded)
