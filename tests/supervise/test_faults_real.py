"""The faults of ``test_faults`` on a real llama-server, where one can be brought to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import msgspec
import psutil
import pytest

from llamamgr.core.cards import Build
from llamamgr.core.config import ModelConfig
from llamamgr.core.errors import EngineError
from llamamgr.supervise import logs, watch
from llamamgr.supervise.probe import ask
from tests.fakes.wrapped import wrapped
from tests.supervise.conftest import model
from tests.supervise.faults import full_disk, leave_a_stale_socket, remove_the_build, turn_the_clock
from tests.supervise.test_faults import FAULTS
from tests.supervise.test_supervisor import alive, until

pytestmark = pytest.mark.real
HERE = "supervise/test_faults_real.py"
KILLED = (HERE, "test_an_engine_killed_at_spawn_in_load_or_ready_is_told_and_replaced")

REAL = {
    "killed at spawn": KILLED,
    "killed in load": KILLED,
    "killed when ready": KILLED,
    "killed in mid-stream": FAULTS["killed in mid-stream"],
    "SIGSTOP": (HERE, "test_an_engine_that_is_stopped_is_noticed_while_a_request_waits_on_it"),
    "hung health": (HERE, "test_a_load_that_hangs_or_takes_too_long_is_ended_and_says_so"),
    "slow load beyond the deadline": (HERE, "test_a_load_that_hangs_or_takes_too_long_is_ended_and_says_so"),
    "stdout flood": (HERE, "test_a_flood_of_output_never_blocks_an_engine"),
    "log on a full disk": (HERE, "test_a_log_that_cannot_be_written_does_not_stop_an_engine"),
    "stale socket": (HERE, "test_a_stale_socket_file_is_no_obstacle_to_an_engine"),
    "foreign listener": (
        "e2e/peers/test_processes.py",
        "test_a_stranger_on_the_port_of_an_engine_is_never_taken_for_it",
    ),
    "ignored SIGTERM": (HERE, "test_an_engine_that_heeds_no_sigterm_is_killed"),
    "grandchild holding the pipes": (HERE, "test_what_holds_an_engines_pipes_goes_with_it"),
    "zombie": KILLED,
    "OOM kill": KILLED,
    "daemon SIGKILL": FAULTS["daemon SIGKILL"],
    "daemon SIGTERM under load": FAULTS["daemon SIGTERM under load"],
    "config broken on reload": FAULTS["config broken on reload"],
    "build removed under a running child": (
        HERE,
        "test_a_build_removed_under_a_running_engine_is_told_at_the_next_start",
    ),
    "clock jumps": (HERE, "test_a_wall_clock_that_jumps_unloads_no_engine"),
}
FAKE_ONLY = {
    "garbage health": "a real one says what it says",
    "no port": "a real one binds the port it is given, or ends",
    "deadlocked SIGTERM": "it cannot be brought about at will",
    "socket path too long": "no engine has a part in it",
    "recycled pid": "no engine has a part in it",
    "a slot stuck while others go on": "it cannot be brought about at will",
    "port taken before the bind": "seen on a real one as `foreign listener`",
    "pid recycled right after the exit": "no engine has a part in it",
}


def test_every_fault_is_shown_on_a_real_engine_or_says_why_not():
    assert set(REAL) <= set(FAULTS)
    assert not set(REAL) & set(FAKE_ONLY)
    assert not set(FAULTS) - set(REAL) - set(FAKE_ONLY)


@pytest.fixture
def engine(real_build: Build, short_folder: Path) -> Build:
    """The real build behind a wrapper that runs ``ENGINE_PRELUDE`` first."""
    return wrapped(Path(real_build.tool("llama-server")), real_build.card, short_folder / "b1")


@pytest.fixture
def pipe(short_folder: Path) -> Path:
    """An adapter that nobody ever writes: an engine that is given it waits in its load."""
    path = short_folder / "adapter.gguf"
    os.mkfifo(path)
    return path


def after(prelude: str) -> dict[str, object]:
    """A configuration in which the model ``tiny`` runs that first."""
    return {"models": {"tiny": ModelConfig(env={"ENGINE_PRELUDE": prelude})}}


async def listening(folder: Path) -> None:
    await until(lambda: list((folder / "run").glob("*.sock")))


@pytest.mark.parametrize("when", ["spawn", "load", "ready"])
async def test_an_engine_killed_at_spawn_in_load_or_ready_is_told_and_replaced(
    supervisor, engine, when, short_folder, pipe
):
    first = f"mkdir {short_folder}/first 2>/dev/null && "
    prelude = {"spawn": first + "kill -KILL $$", "load": first + f'set -- "$@" --lora {pipe}', "ready": ""}[
        when
    ]
    async with supervisor(engine, config=after(prelude)) as owner:
        if when == "ready":
            async with owner.acquire(model()) as lease:
                pid = owner.status()[0].pid
                os.kill(pid, signal.SIGKILL)
                assert "SIGKILL" in (await owner.cause_of_death(lease.child, 5) or "")
                assert not psutil.pid_exists(pid)
        else:
            async with asyncio.TaskGroup() as tasks:
                if when == "load":
                    tasks.create_task(_kill_in_load(owner, short_folder))
                with pytest.raises(EngineError, match="SIGKILL"):
                    async with owner.acquire(model()):
                        pass
        async with asyncio.timeout(20), owner.acquire(model()) as again:
            assert (await ask(again.endpoint, "/health", 5)).status == 200


async def _kill_in_load(owner, folder: Path) -> None:
    await listening(folder)
    [child] = owner.status()
    assert child.state == "loading"
    os.kill(child.pid, signal.SIGKILL)


async def test_an_engine_that_is_stopped_is_noticed_while_a_request_waits_on_it(
    supervisor, engine, monkeypatch
):
    monkeypatch.setattr(watch, "_PROBE_DEADLINE", 0.2)
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    async with supervisor(engine) as owner, owner.acquire(model()) as lease:
        os.kill(owner.status()[0].pid, signal.SIGSTOP)
        cause = await owner.cause_of_death(lease.child, 10)
        assert "stopped answering /health" in (cause or "")


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_load_that_hangs_or_takes_too_long_is_ended_and_says_so(
    supervisor, engine, pipe, short_folder, hangs
):
    tiny = {"models": {"tiny": ModelConfig(adapters=(str(pipe),))}}
    async with supervisor(engine, load_wait=1.0, config=tiny) as owner:

        async def stop() -> None:
            await listening(short_folder)
            os.kill(owner.status()[0].pid, signal.SIGSTOP)

        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            if hangs:
                tasks.create_task(stop())
            with pytest.raises(EngineError, match="not ready after 1 s"):
                async with owner.acquire(model()):
                    pass


async def test_a_flood_of_output_never_blocks_an_engine(supervisor, engine):
    flood = "head -c 8000000 /dev/zero | tr '\\0' x"
    async with (
        supervisor(engine, config=after(flood)) as owner,
        asyncio.timeout(20),
        owner.acquire(model()) as lease,
    ):
        assert (await ask(lease.endpoint, "/health", 5)).status == 200


async def test_a_log_that_cannot_be_written_does_not_stop_an_engine(supervisor, engine, monkeypatch):
    monkeypatch.setattr(logs.os, "write", full_disk)
    async with supervisor(engine) as owner, asyncio.timeout(20), owner.acquire(model()) as lease:
        assert (await ask(lease.endpoint, "/health", 5)).status == 200


async def test_a_stale_socket_file_is_no_obstacle_to_an_engine(supervisor, engine, short_folder):
    assert await leave_a_stale_socket(supervisor, engine, short_folder) == (True, 200)


async def test_an_engine_that_heeds_no_sigterm_is_killed(supervisor, engine):
    async with supervisor(engine, slot_cache=0) as owner:
        async with owner.acquire(model(), keep_alive=0.0):
            process = psutil.Process(owner.status()[0].pid)
            process.suspend()
        await until(lambda: owner.status() == (), 10)
        assert not alive(process)


async def test_what_holds_an_engines_pipes_goes_with_it(supervisor, engine):
    async with supervisor(engine, config=after("sleep 60 &")) as owner:
        async with owner.acquire(model(), keep_alive=0.0):
            family = psutil.Process(owner.status()[0].pid).children(recursive=True)
            assert family
        await until(lambda: owner.status() == ())
        await until(lambda: not any(alive(process) for process in family))


async def test_a_build_removed_under_a_running_engine_is_told_at_the_next_start(
    supervisor, real_build, short_folder
):
    shutil.copytree(real_build.root, short_folder / "b2")
    health, told = await remove_the_build(
        supervisor, msgspec.structs.replace(real_build, root=str(short_folder / "b2"))
    )
    assert health == 200
    assert "could not be started" in told


async def test_a_wall_clock_that_jumps_unloads_no_engine(supervisor, engine, monkeypatch):
    assert await turn_the_clock(supervisor, engine, monkeypatch) == [True, True]
