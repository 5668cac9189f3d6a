"""What the supervisor counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path

from llamamgr.core.errors import BusyError, EngineError
from llamamgr.plan import scheduler
from llamamgr.plan.events import REPLACED, KeySuperseded
from llamamgr.supervise.tally import MOST_MODELS, THE_REST, Tally, kind_of, reason_of
from tests.supervise.conftest import MIB, model

TINY = "tiny:latest"


async def test_loads_waits_and_evictions_are_counted_by_model(fake_build, supervisor) -> None:
    async with supervisor(fake_build(), max_models=1) as owner:
        for name in ("tiny", "other", "tiny"):
            async with owner.acquire(model(name)):
                assert owner.tally.waiting == 0
        tiny, other = owner.tally.of(TINY), owner.tally.of("other:latest")
        assert (tiny.starts, tiny.restarts, other.starts) == (2, 0, 1)
        assert (sum(tiny.load_seconds.counts), sum(tiny.wait_seconds.counts)) == (2, 2)
        assert tiny.load_seconds.total > 0
        assert (tiny.unloads["evicted"], other.unloads["evicted"]) == (1, 1)


async def test_requests_that_wait_are_counted_while_they_do(fake_build, supervisor) -> None:
    async with supervisor(fake_build("load=0.5")) as owner, asyncio.TaskGroup() as tasks:
        held = tasks.create_task(hold(owner))
        async with asyncio.timeout(10):
            while not owner.tally.waiting:
                await asyncio.sleep(0.01)
        assert owner.tally.waiting == 1
        await held
        assert owner.tally.waiting == 0


async def hold(owner) -> None:
    async with owner.acquire(model()):
        pass


async def test_an_unloading_that_somebody_asked_for_is_no_expiry(fake_build, supervisor) -> None:
    async with supervisor(fake_build()) as owner:
        await hold(owner)
        await owner.unload(model())
        assert dict(owner.tally.of(TINY).unloads) == {"asked": 1}


def test_every_reason_the_plan_gives_has_a_word() -> None:
    plan = Path(scheduler.__file__).parent
    said = {
        *re.findall(
            r'"(its (?:ttl|keep-alive) ran out|somebody wants [^"]*)"', (plan / "scheduler.py").read_text()
        ),
        KeySuperseded("c1").reason,
        REPLACED,
        "one of its slots is stuck",
    }
    assert len(said) == 7
    assert {reason for reason in said if reason_of(reason) == "other"} == set()


async def test_a_crash_is_counted_with_its_cause_and_the_next_start_is_a_restart(
    fake_build, supervisor
) -> None:
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model()) as lease:
            (child,) = owner.status()
            os.kill(child.pid, signal.SIGKILL)
            assert await owner.cause_of_death(lease.child, 10)
        async with owner.acquire(model()):
            pass
        tiny = owner.tally.of(TINY)
        assert dict(tiny.failures) == {("run", "signal"): 1}
        assert (tiny.starts, tiny.restarts) == (2, 1)


async def test_a_load_that_fails_is_counted_as_one(fake_build, supervisor) -> None:
    async with supervisor(fake_build("exit-at=load,exit-code=3")) as owner:
        with contextlib.suppress(EngineError):
            await hold(owner)
        assert dict(owner.tally.of(TINY).failures) == {("load", "exit"): 1}


async def test_a_refusal_is_counted_with_its_reason(fake_build, supervisor) -> None:
    async with supervisor(fake_build(), memory=1 * MIB) as owner:
        with contextlib.suppress(BusyError):
            async with owner.acquire(model(size=500 * MIB)):
                pass
        assert owner.tally.refusals == {"too_big": 1}


def test_more_names_than_there_is_room_for_share_one_record() -> None:
    tally = Tally()
    for number in range(MOST_MODELS + 50):
        tally.of(f"m{number}").started()
    assert len(tally.models) == MOST_MODELS + 1
    assert tally.models[THE_REST].starts == 50


def test_causes_have_one_word_each() -> None:
    assert (
        kind_of("llama-server was not ready after 3 s; llama-server was killed by SIGKILL") == "load_timeout"
    )
    assert kind_of("llama-server was killed by SIGSEGV: log") == "signal"
    assert kind_of("something nobody thought of") == "other"
