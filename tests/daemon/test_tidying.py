"""The daemon's own memory: what is loaded is left alone, what died in rings is collected."""

from __future__ import annotations

import asyncio
import gc
import weakref

from llamamgr.daemon import tidying


class Ring:
    def __init__(self) -> None:
        self.ring = self


def test_what_is_loaded_is_set_aside_from_the_collector() -> None:
    before = gc.get_freeze_count()
    try:
        tidying.set_aside_what_is_loaded()
        assert gc.get_freeze_count() > before + 10_000
    finally:
        gc.unfreeze()


async def test_rings_of_dead_objects_do_not_stay_where_the_process_has_grown(monkeypatch) -> None:
    sizes = iter([50_000_000, 40_000_000, 41_000_000, 60_000_000])
    monkeypatch.setattr(tidying, "resident", lambda pid: next(sizes, 40_000_000))
    monkeypatch.setattr(tidying, "_INTERVAL", 0)
    gc.disable()
    try:
        ring = weakref.ref(Ring())
        assert ring() is not None
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(tidying.keep_small())
            while ring() is not None:
                await asyncio.sleep(0)
            keeping.cancel()
    finally:
        gc.enable()
