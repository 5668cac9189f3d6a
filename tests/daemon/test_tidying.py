"""The daemon's own memory: what is loaded is left alone, what died in rings is collected. Its log stays short."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
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


WRITES = """
import sys
from pathlib import Path
from llamamgr.daemon.tidying import rotate
log = Path(sys.argv[1])
print("x" * 100, flush=True)
print(rotate(log, 1000), file=sys.stderr, flush=True)
print("x" * 1000, flush=True)
print(rotate(log, 1000), flush=True)
print("here", file=sys.stderr, flush=True)
print(rotate(Path(sys.argv[2]), 1000), flush=True)
"""


def test_a_long_log_is_begun_anew_and_the_one_before_it_kept(tmp_path) -> None:
    log, other = tmp_path / "daemon.log", tmp_path / "other.log"
    other.write_text("x" * 5000)
    with log.open("ab") as file:
        subprocess.run(
            [sys.executable, "-c", WRITES, str(log), str(other)],
            stdout=file,
            stderr=file,
            timeout=60,
            check=True,
        )
    assert log.read_text() == "True\nhere\nFalse\n"
    assert (tmp_path / "daemon.log.1").read_text() == f"{'x' * 100}\nFalse\n{'x' * 1000}\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert other.stat().st_size == 5000, "it is not where this process writes"
    assert not tidying.rotate(tmp_path / "none.log")
