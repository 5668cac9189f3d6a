"""One child and its steps, without a supervisor: a real process, and an owner that writes down what it is told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from llamamgr.core.config import NO_SETTINGS
from llamamgr.plan.events import HOST, Placement
from llamamgr.plan.memory import shape_of
from llamamgr.supervise.child import Child
from llamamgr.supervise.launch import Launch, prepare
from llamamgr.supervise.lease import NO_WISHES
from llamamgr.supervise.wishes import Wish
from tests.supervise.conftest import model


class Diary:
    """Steps that are written down. Those of a stop want the process to be there still."""

    def __init__(self, launch: Callable[[], Launch]) -> None:
        self._launch = launch
        self.told: list[str] = []
        self.pid = 0
        self.is_spawned = asyncio.Event()
        self.is_ready = asyncio.Event()

    def launch(self) -> Launch:
        self.told.append("launch")
        return self._launch()

    def spawned(self, pid: int) -> None:
        self.told.append("spawned")
        self.pid = pid
        self.is_spawned.set()

    async def healthy(self) -> None:
        self.told.append("healthy")

    def ready(self) -> None:
        self.told.append("ready")
        self.is_ready.set()

    def leases(self) -> int:
        return 0

    def stuck(self, told: str) -> None:
        self.told.append("stuck")

    async def before_stop(self) -> None:
        os.kill(self.pid, 0)  # it can still be asked
        self.told.append("before_stop")

    def stopping(self) -> None:
        os.kill(self.pid, 0)
        self.told.append("stopping")


@pytest.fixture
def diary(fake_build, short_folder) -> Callable[[str], Diary]:
    def make(faults: str = "") -> Diary:
        wish = Wish(model(), fake_build(faults), shape_of(model(), 0, 1), NO_WISHES, NO_SETTINGS)
        place = Placement({HOST: 1})
        return Diary(lambda: prepare(wish, place, child="c1", run=short_folder, state=short_folder))

    return make


async def end_of(steps: Diary, after: asyncio.Event, do: Callable[[Child], None]) -> str:
    """What a child says of its end, to which ``do`` was done after that step."""
    child = Child("c1", steps, load_wait=60, stall_wait=20)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(child.run())
        await after.wait()
        do(child)
    return run.result()


async def test_a_child_that_is_stopped_was_told_of_at_each_step_in_order(diary):
    steps = diary()
    cause = await end_of(steps, steps.is_ready, lambda child: child.stop())
    assert steps.told == ["launch", "spawned", "healthy", "ready", "before_stop", "stopping"]
    assert cause.startswith("llama-server")


async def test_a_child_that_is_stopped_while_it_loads_has_nothing_to_save(diary):
    steps = diary("load=30")
    await end_of(steps, steps.is_spawned, lambda child: child.stop())
    assert steps.told == ["launch", "spawned", "stopping"]


async def test_a_child_stopped_for_a_reason_is_not_kept_up_by_saving_and_says_the_reason(diary):
    steps = diary()
    cause = await end_of(steps, steps.is_ready, lambda child: child.stop("the house burns"))
    assert steps.told == ["launch", "spawned", "healthy", "ready", "stopping"]
    assert cause.startswith("the house burns; llama-server")


async def test_a_child_that_dies_by_itself_is_not_said_to_be_stopping(diary):
    steps = diary()
    cause = await end_of(steps, steps.is_ready, lambda child: os.kill(child.pid, signal.SIGKILL))
    assert steps.told == ["launch", "spawned", "healthy", "ready"]
    assert cause == "llama-server was killed by SIGKILL"  # what it logged before says nothing of that


async def test_of_a_child_that_is_killed_while_it_loads_only_what_speaks_of_a_failure_is_told(diary):
    child = Child("c1", diary("load=30"), load_wait=60, stall_wait=20)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(child.run())
        while not (child.pid and child.log_tail(1)):
            await asyncio.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    assert run.result() == "llama-server was killed by SIGKILL"


async def test_a_child_stopped_before_its_start_never_has_a_process(diary):
    steps = diary()
    child = Child("c1", steps, load_wait=20, stall_wait=20)
    child.stop()
    assert await child.run() == "it was stopped before it started"
    assert steps.told == ["launch"]
