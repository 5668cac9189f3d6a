"""A changed configuration is read once, when it has settled, and only where that is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llamamgr.daemon import config_watch
from llamamgr.daemon.config_watch import ConfigWatch


class Looks:
    """A watch whose looks the test counts, and what it reloaded."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wanted = True
        self.loaded: list[str] = []
        self.count = 0
        self.path = path
        real = config_watch.state_of

        def counted(at: Path) -> config_watch.State:
            self.count += 1
            return real(at)

        self.watch = ConfigWatch(path, lambda: self.wanted, self.reload, interval=0.001)
        monkeypatch.setattr(config_watch, "state_of", counted)

    async def reload(self) -> None:
        self.loaded.append(self.path.read_text() if self.path.exists() else "none")

    async def more(self, looks: int = 4) -> None:
        """Wait for so many looks, and for what the last of them leads to."""
        last = self.count + looks
        async with asyncio.timeout(10):
            while self.count <= last:
                await asyncio.sleep(0.001)


@pytest.fixture
async def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Looks]:
    path = tmp_path / "config.toml"
    path.write_text("first")
    found = Looks(path, monkeypatch)
    task = asyncio.create_task(found.watch.run())  # noqa: TID251 - ended below
    yield found
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_file_is_read_once_for_each_change(looks: Looks) -> None:
    await looks.more()
    assert looks.loaded == []
    for text in ("second", "third, longer"):
        looks.path.write_text(text)
        await looks.more()
    assert looks.loaded == ["second", "third, longer"]


async def test_a_file_put_in_place_by_rename_and_one_of_the_same_size_count_as_changes(looks: Looks) -> None:
    newer = looks.path.with_suffix(".new")
    newer.write_text("other")
    os.utime(newer, ns=(0, looks.path.stat().st_mtime_ns))
    newer.replace(looks.path)
    await looks.more()
    looks.path.unlink()
    await looks.more()
    assert looks.loaded == ["other", "none"]


async def test_a_file_that_is_being_written_is_left_to_settle(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = iter(range(1, 50))
    monkeypatch.setattr(config_watch, "state_of", lambda path: (0, next(growing, 50), 0))
    async with asyncio.timeout(10):
        while not looks.loaded:
            await asyncio.sleep(0.001)
    assert looks.loaded == ["first"]
    assert next(growing, None) is None


async def test_what_is_not_wanted_costs_no_look(looks: Looks) -> None:
    looks.wanted = False
    await asyncio.sleep(0.02)
    before = looks.count
    looks.path.write_text("second")
    await asyncio.sleep(0.02)
    assert (looks.count, looks.loaded) == (before, [])
    looks.wanted = True
    await looks.more()
    assert looks.loaded == ["second"]
