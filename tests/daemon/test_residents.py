"""What is loaded without being asked for, over real children."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llamamgr.core.config import parse_config
from llamamgr.daemon import residents as residents_module
from llamamgr.daemon.residents import Residents
from llamamgr.host.paths import Paths
from llamamgr.models.index import Index
from llamamgr.supervise.supervisor import Supervisor
from tests.supervise.conftest import TINY
from tests.supervise.test_supervisor import until


class House:
    """A supervisor, its residents, and two models called ``one`` and ``two``."""

    def __init__(self, owner: Supervisor, index: Index, residents: Residents) -> None:
        self.owner = owner
        self.index = index
        self.residents = residents
        self.now = 0.0

    @property
    def loaded(self) -> set[str]:
        return {c.model.name.partition(":")[0] for c in self.owner.status() if c.state == "ready"}

    async def look(self, seconds: float = 2.0) -> list[str]:
        """What the residents try to load at their next look, ``seconds`` after the one before."""
        self.now += seconds
        due = self.residents.due(self.now)
        for name, modest in due.items():
            await self.residents.load(name, modest=modest)
        return [*due]

    async def ask(self, name: str) -> None:
        async with self.owner.acquire(self.index.resolve(name)):
            pass


MakeHouse = Callable[..., contextlib.AbstractAsyncContextManager[House]]


@pytest.fixture
def house(supervisor, fake_build, short_folder: Path) -> MakeHouse:
    folder = short_folder / "models"
    folder.mkdir()
    for number, name in enumerate(("one", "two")):
        shutil.copy(TINY, folder / f"{name}.gguf")
        with (folder / f"{name}.gguf").open("ab") as file:
            file.write(bytes(number))  # the same file twice would be one model
    paths = Paths(*(short_folder / name for name in ("data", "config", "cache", "state", "run")))

    @contextlib.asynccontextmanager
    async def make(tables: dict[str, Any], faults: str = "", **scheduler: object) -> AsyncIterator[House]:
        config = parse_config({"models_dirs": [str(folder)], **tables})
        index = Index(paths, config)
        more = {"models": config.models, "groups": config.groups}
        async with supervisor(fake_build(faults), config=more, **scheduler) as owner:
            owner._estimates._card_of = index.find
            yield House(owner, index, Residents(owner, index, config))

    return make


def kill(house: House, name: str) -> None:
    (pid,) = (child.pid for child in house.owner.status() if child.model.name == f"{name}:latest")
    os.kill(pid, signal.SIGKILL)


async def test_a_pinned_model_whose_engine_died_is_loaded_again(house: MakeHouse) -> None:
    async with house({"models": {"one": {"pin": True}}}) as home:
        assert await home.look() == ["one"]
        assert await home.look(100) == []
        kill(home, "one")
        await until(lambda: not home.loaded)
        assert await home.look() == ["one"]
        assert home.loaded == {"one"}


async def test_a_pinned_model_that_somebody_unloaded_stays_away_until_it_is_asked_for(
    house: MakeHouse,
) -> None:
    async with house({"models": {"one": {"pin": True}}}) as home:
        await home.look()
        for now in (False, True):
            await home.look(100)
            await home.owner.unload(home.index.resolve("one"), now=now)
            await until(lambda: home.owner.status() == ())
            assert await home.look(100) == []
            await home.ask("one")
        await home.look(100)
        kill(home, "one")
        await until(lambda: not home.loaded)
        assert await home.look() == ["one"], "a request has brought it back"


async def test_a_preloaded_model_is_loaded_once(house: MakeHouse) -> None:
    async with house({"models": {"one": {"preload": True}}}) as home:
        assert await home.look() == ["one"]
        kill(home, "one")
        await until(lambda: not home.loaded)
        assert await home.look(1000) == []


async def test_what_cannot_be_loaded_is_tried_ever_less_often_and_said_once(house: MakeHouse, caplog) -> None:
    caplog.set_level(logging.WARNING, residents_module.__name__)
    async with house({"default_model": "nowhere"}) as home:
        tries = [second for second in range(0, 2000, 2) if await home.look()]
        pauses = [after - before for before, after in itertools.pairwise(tries)]
        assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    assert [r.name for r in caplog.records].count(residents_module.__name__) == 1


async def test_one_that_was_loaded_well_is_tried_at_once_when_it_is_gone(house: MakeHouse) -> None:
    async with house({"default_model": "one"}) as home:
        for _ in range(3):
            assert await home.look() == ["one"]
            await home.look(100)
            kill(home, "one")
            await until(lambda: not home.loaded)


async def test_companions_come_where_there_is_room_and_drive_nobody_out(house: MakeHouse) -> None:
    groups = {"pair": {"models": ["one", "two"], "exclusive": False}}
    async with house({"groups": groups}) as home:
        assert await home.look() == []
        await home.ask("one")
        assert await home.look() == ["two"]
        assert home.loaded == {"one", "two"}
    async with house({"groups": groups}, max_models=1) as home:
        await home.ask("one")
        assert await home.look() == ["two"]
        assert home.loaded == {"one"}
        await home.ask("two")
        assert await home.look(1000) == [], "each once"
        assert home.loaded == {"two"}


async def test_others_make_way_for_a_pinned_model(house: MakeHouse) -> None:
    async with house({"models": {"one": {"pin": True}}}, max_models=1) as home:
        await home.ask("two")
        await home.look()
        assert home.loaded == {"one"}


async def test_one_that_takes_long_keeps_no_other_from_being_loaded(house: MakeHouse, monkeypatch) -> None:
    monkeypatch.setattr(residents_module, "_LOOK_SECONDS", 0.01)
    tables = {
        "models": {"one": {"preload": True, "env": {"FAKE_LLAMA": "never-healthy"}}, "two": {"pin": True}}
    }
    async with house(tables) as home, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(home.residents.run())
        await until(lambda: home.loaded == {"two"})
        assert home.loaded == {"two"} and not running.done(), "the other one is still waited for"
        running.cancel()
