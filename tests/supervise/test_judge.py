"""Which deaths a build is blamed for. No process: what died is said, not made to die."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from llamamgr.core.cards import Build, BuildCard, Source
from llamamgr.core.config import NO_SETTINGS
from llamamgr.plan.events import HOST, Placement
from llamamgr.plan.memory import shape_of
from llamamgr.plan.progress import Progress
from llamamgr.supervise.child import Child
from llamamgr.supervise.judge import Judge
from llamamgr.supervise.lease import NO_WISHES
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.pace import Pace
from llamamgr.supervise.running import Running
from llamamgr.supervise.tally import Tally
from llamamgr.supervise.wishes import Wish
from tests.supervise.conftest import Chosen, model

OLD = Build(BuildCard("b1", "old", "cpu", 1, "abc", Source("directory"), verified=True), "/old")
NEW = Build(BuildCard("b2", "new", "cpu", 2, "def", Source("directory"), verified=True), "/new")
PLACE = Placement({HOST: 1})


class Court:
    """A judge, and what came of its verdicts."""

    def __init__(self, folder: Path, former: Build | None = OLD) -> None:
        self.builds = Chosen(NEW, former)
        self.measured = Measured(folder / "measured.json")
        self.tally = Tally()
        self.given_up: list[Build] = []
        self.judge = Judge(self.builds, self.measured, self.tally, self.given_up.append)

    async def three_deaths(self, *, ready: bool) -> None:
        self.judge.started(NEW)
        for _ in range(3):
            assert self.given_up == []
            await self.judge.died(dead(NEW, ready=ready), "llama-server exited with code 1")


def dead(build: Build, *, ready: bool) -> Running:
    """What is left of a child of ``build``; nothing of the process is asked any more."""
    wish = Wish(model(), build, shape_of(model(), 0, 1), NO_WISHES, NO_SETTINGS)
    return Running(cast(Child, None), wish, PLACE, 1.0, Pace(Progress()), ready=2.0 if ready else 0.0)


@pytest.fixture
def court(tmp_path: Path) -> Court:
    return Court(tmp_path)


async def test_a_build_whose_children_crash_while_they_serve_is_given_up(court):
    await court.three_deaths(ready=True)
    assert court.given_up == [NEW]
    assert court.builds.current is OLD
    assert court.tally.of("tiny:latest").failures == {("run", "exit"): 3}


async def test_loads_that_fail_are_no_fault_of_the_build_where_the_former_never_loaded_the_model(court):
    await court.three_deaths(ready=False)
    assert court.given_up == []
    assert court.builds.current is NEW
    assert court.tally.of("tiny:latest").failures == {("load", "exit"): 3}


async def test_loads_that_fail_are_the_builds_fault_where_the_former_loaded_the_model(court):
    court.measured.note(dead(OLD, ready=True).wish, "", PLACE, {HOST: 1}, 0.5)
    await court.three_deaths(ready=False)
    assert court.given_up == [NEW]


async def test_without_a_former_build_none_is_given_up(tmp_path):
    court = Court(tmp_path, former=None)
    await court.three_deaths(ready=True)
    assert court.given_up == []
    assert court.builds.current is NEW
