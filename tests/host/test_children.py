"""A child's end is noticed before it is reaped, and no signal is sent once its pid may be somebody else's."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import psutil
import pytest
import uvloop

from llamamgr.host import children
from llamamgr.host.children import ChildProcess, spawn_child

# prints the pid of a grandchild that outlives it and holds its pipes
LEAVES_ONE = (
    "import subprocess, sys;"
    "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True);"
    "sys.exit(3)"
)
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


async def python(code: str) -> ChildProcess:
    return await spawn_child([sys.executable, "-c", code], dict(os.environ))


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def until_gone(pid: int) -> None:
    while psutil.pid_exists(pid) and not is_zombie(pid):
        await asyncio.sleep(0.01)


@pytest.fixture(params=["by a descriptor", "on a thread"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to learn of an end: that of Linux, and that of other systems."""
    if request.param == "on a thread":
        monkeypatch.delattr(os, "pidfd_open")


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_at_its_end_a_child_is_not_reaped_and_what_it_left_can_be_killed(loop_factory) -> None:
    async def test() -> None:
        child = await python(LEAVES_ONE)
        grandchild = int(await child.output.readline())
        await child.ended()
        assert is_zombie(child.pid)
        assert not is_zombie(grandchild)
        child.kill_group()
        assert await child.output.read() == b""  # the pipes are free
        await until_gone(grandchild)
        assert child.reap() == 3
        assert not psutil.pid_exists(child.pid)
        child.close()

    run(loop_factory, test)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_nothing_is_signalled_once_it_was_reaped(loop_factory, monkeypatch) -> None:
    sent: list[int] = []

    async def test() -> None:
        child = await python("pass")
        await child.ended()
        child.reap()
        monkeypatch.setattr(children.os, "kill", lambda pid, number: sent.append(pid))
        monkeypatch.setattr(children.os, "killpg", lambda pid, number: sent.append(pid))
        child.signal(signal.SIGTERM)
        child.kill_group()
        child.close()
        child.close()

    run(loop_factory, test)
    assert sent == []


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_closing_ends_a_child_that_runs_with_its_group(loop_factory) -> None:
    async def test() -> None:
        child = await python(LEAVES_ONE.replace("sys.exit(3)", "import time; time.sleep(60)"))
        grandchild = int(await child.output.readline())
        child.close()
        await until_gone(grandchild)
        while psutil.pid_exists(child.pid):  # reaped, not only dead
            await asyncio.sleep(0.01)
        assert not psutil.pid_exists(child.pid)
        child.kill_group()

    run(loop_factory, test)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_program_that_is_not_there_is_an_error_and_leaves_no_descriptor(loop_factory) -> None:
    async def test() -> None:
        for attempt in range(4):
            if attempt == 1:  # what the loop itself opens at its first pipe is no leak
                before = psutil.Process().num_fds()
            with pytest.raises(FileNotFoundError):
                await spawn_child(["/nowhere/at-all"], {})
            child = await python("print('x' * 100_000)")
            assert len(await child.output.read()) == 100_001
            await child.ended()
            assert child.reap() == 0
            child.close()
            await asyncio.sleep(0.01)  # a transport closes in the loop's next turn
        assert psutil.Process().num_fds() <= before

    run(loop_factory, test)


def test_a_start_that_is_cut_short_leaves_no_process(monkeypatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def remember(*args: object, **more: object) -> subprocess.Popen[bytes]:
        started.append(real(*args, **more))  # type: ignore[call-overload]
        return started[-1]

    async def test() -> None:
        async def cut(*args: object) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(children.subprocess, "Popen", remember)
        monkeypatch.setattr(asyncio.get_running_loop(), "connect_read_pipe", cut)
        with pytest.raises(asyncio.CancelledError):
            await python("import time; time.sleep(60)")

    run(asyncio.new_event_loop, test)
    assert started[0].returncode == -signal.SIGKILL
