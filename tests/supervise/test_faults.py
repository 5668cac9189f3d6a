"""Faults injected into children and their surroundings; ``FAULTS`` says which test shows which, wherever it stands."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from llamamgr.core.errors import EngineError
from llamamgr.host import children
from llamamgr.host.ports import free_port
from llamamgr.plan.progress import Progress, Rules
from llamamgr.supervise import child, launch, logs, watch
from llamamgr.supervise.launch import prepare
from llamamgr.supervise.lease import Lease
from llamamgr.supervise.orphans import start_time
from llamamgr.supervise.probe import ask
from tests.fakes.fake_llama_server import ENDLESS
from tests.supervise.conftest import model
from tests.supervise.faults import full_disk, leave_a_stale_socket, remove_the_build, turn_the_clock
from tests.supervise.test_supervisor import alive, until

ROOT = Path(__file__).parent.parent
HERE, SUPERVISOR = "supervise/test_faults.py", "supervise/test_supervisor.py"
PROMISES, SETTINGS, ORPHANS = "e2e/test_promises.py", "e2e/test_settings.py", "supervise/test_orphans.py"

FAULTS = {
    "killed at spawn": (HERE, "test_a_child_killed_at_spawn_in_load_or_ready_is_told_and_replaced"),
    "killed in load": (HERE, "test_a_child_killed_at_spawn_in_load_or_ready_is_told_and_replaced"),
    "killed when ready": (HERE, "test_a_child_killed_at_spawn_in_load_or_ready_is_told_and_replaced"),
    "killed in mid-stream": (
        PROMISES,
        "test_a_child_killed_in_mid_stream_gives_an_error_in_the_clients_dialect_and_no_clean_end",
    ),
    "SIGSTOP": (SUPERVISOR, "test_a_stopped_process_is_noticed_while_a_request_waits_on_it"),
    "a slot stuck while others go on": (
        HERE,
        "test_a_slot_that_is_stuck_while_others_go_on_costs_only_its_own_request",
    ),
    "hung health": (SUPERVISOR, "test_a_hung_health_endpoint_cannot_hold_the_deadline_up"),
    "garbage health": (HERE, "test_garbage_in_place_of_health_is_not_ready"),
    "slow load beyond the deadline": (SUPERVISOR, "test_a_load_past_its_deadline_is_ended_and_says_so"),
    "stdout flood": (SUPERVISOR, "test_a_flood_of_output_never_blocks_the_child"),
    "log on a full disk": (HERE, "test_a_log_that_cannot_be_written_does_not_stop_a_child"),
    "no port": (HERE, "test_a_child_that_binds_another_port_is_never_taken_for_ready"),
    "port taken before the bind": (
        HERE,
        "test_a_port_taken_before_the_childs_bind_gives_way_to_another",
    ),
    "socket path too long": (
        "host/test_files.py",
        "test_a_home_too_deep_for_sockets_gets_a_short_runtime_folder",
    ),
    "stale socket": (HERE, "test_a_stale_socket_file_is_no_obstacle"),
    "foreign listener": (HERE, "test_a_stranger_on_the_port_is_never_taken_for_the_child"),
    "ignored SIGTERM": (SUPERVISOR, "test_a_child_that_ignores_sigterm_is_killed"),
    "deadlocked SIGTERM": (HERE, "test_a_first_sigterm_that_deadlocks_is_followed_by_a_second"),
    "grandchild holding the pipes": (
        SUPERVISOR,
        "test_a_grandchild_that_holds_the_pipes_goes_with_the_child",
    ),
    "zombie": (HERE, "test_a_zombie_counts_as_dead"),
    "recycled pid": (ORPHANS, "test_a_recycled_pid_is_left_alone"),
    "pid recycled right after the exit": (
        HERE,
        "test_a_signal_is_only_sent_while_the_pid_is_the_childs_own",
    ),
    "OOM kill": (SUPERVISOR, "test_a_killed_child_leaves_its_cause_and_the_next_request_gets_a_new_one"),
    "daemon SIGKILL": (PROMISES, "test_after_kill_9_of_the_daemon_no_child_lives_and_the_next_start_works"),
    "daemon SIGTERM under load": (
        SETTINGS,
        "test_the_daemon_under_load_answers_or_tells_an_error_when_it_is_stopped",
    ),
    "config broken on reload": (SETTINGS, "test_a_broken_configuration_changes_nothing_and_is_named"),
    "build removed under a running child": (
        HERE,
        "test_a_build_removed_under_a_running_child_is_told_at_the_next_start",
    ),
    "clock jumps": (HERE, "test_a_wall_clock_that_jumps_unloads_nothing"),
}


def test_every_fault_of_the_table_has_its_test():
    for path, name in FAULTS.values():
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names, f"{path} has no {name}"


@pytest.mark.parametrize("when", ["spawn", "load", "ready"])
async def test_a_child_killed_at_spawn_in_load_or_ready_is_told_and_replaced(
    supervisor, fake_build, when, short_folder
):
    faults = (
        f"once={short_folder}/first,"
        + {"spawn": "exit-at=start", "load": "exit-at=load", "ready": "slow-load=0"}[when]
    )
    async with supervisor(fake_build(f"{faults},exit-code=-9")) as owner:
        if when == "ready":
            async with owner.acquire(model()) as lease:
                os.kill(owner.status()[0].pid, signal.SIGKILL)
                assert "SIGKILL" in (await owner.cause_of_death(lease.child, 5) or "")
        else:
            with pytest.raises(EngineError, match="SIGKILL"):
                async with owner.acquire(model()):
                    pass
        async with asyncio.timeout(10), owner.acquire(model()) as again:
            assert (await ask(again.endpoint, "/health", 5)).status == 200


async def test_garbage_in_place_of_health_is_not_ready(short_folder):
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 O\x00K\r\nnonsense\r\n\r\n\xff\xff")
        writer.close()

    path = str(short_folder / "g.sock")
    server = await asyncio.start_unix_server(garbage, path)
    async with server:
        assert await ask(launch.Endpoint(socket=path), "/health", 2) is None


async def test_a_log_that_cannot_be_written_does_not_stop_a_child(supervisor, fake_build, monkeypatch):
    monkeypatch.setattr(logs.os, "write", full_disk)
    async with (
        supervisor(fake_build("flood-stdout")) as owner,
        asyncio.timeout(15),
        owner.acquire(model()) as lease,
    ):
        assert (await ask(lease.endpoint, "/health", 5)).status == 200


async def test_a_child_that_binds_another_port_is_never_taken_for_ready(supervisor, fake_build):
    build = fake_build("wrong-port", unix_socket=False)
    async with supervisor(build, load_wait=0.5) as owner:
        with pytest.raises(EngineError, match="not ready after"):
            async with owner.acquire(model()):
                pass


async def test_a_port_taken_before_the_childs_bind_gives_way_to_another(supervisor, fake_build, monkeypatch):
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        stolen = thief.getsockname()[1]
        ports = iter([stolen, stolen])
        monkeypatch.setattr(launch, "free_port", lambda host: next(ports, None) or free_port(host))
        async with (
            supervisor(fake_build(unix_socket=False)) as owner,
            asyncio.timeout(15),
            owner.acquire(model()) as lease,
        ):
            assert lease.endpoint.port != stolen
            assert (await ask(lease.endpoint, "/health", 5)).status == 200


async def test_ports_that_are_always_taken_are_told_after_a_few(supervisor, fake_build, monkeypatch):
    asked = []
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        monkeypatch.setattr(launch, "free_port", lambda host: asked.append(host) or thief.getsockname()[1])
        async with supervisor(fake_build(unix_socket=False)) as owner:
            with pytest.raises(EngineError, match="couldn't bind HTTP server socket"):
                async with owner.acquire(model()):
                    pass
    assert len(asked) == 4


async def test_a_stale_socket_file_is_no_obstacle(supervisor, fake_build, short_folder):
    assert await leave_a_stale_socket(supervisor, fake_build(), short_folder) == (True, 200)


async def test_a_stranger_on_the_port_is_never_taken_for_the_child(supervisor, fake_build, monkeypatch):
    async def always_well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}')
        writer.close()

    stranger = await asyncio.start_server(always_well, "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    endpoint = launch.Endpoint(host="127.0.0.1", port=port, api_key="ours")
    monkeypatch.setattr(launch, "_tcp_endpoint", lambda: endpoint)
    async with stranger, supervisor(fake_build(unix_socket=False), load_wait=3) as owner:
        with pytest.raises(EngineError, match="could not be loaded"):
            async with owner.acquire(model()):
                pass


async def test_a_first_sigterm_that_deadlocks_is_followed_by_a_second(supervisor, fake_build):
    async with supervisor(fake_build("ignore-sigterm=1")) as owner:
        async with owner.acquire(model(), keep_alive=0.0):
            process = psutil.Process(owner.status()[0].pid)
        await until(lambda: owner.status() == (), 3.5)  # 2 s to the second SIGTERM, 4 s would be SIGKILL
        assert not alive(process)


async def test_a_slot_that_is_stuck_while_others_go_on_costs_only_its_own_request(
    supervisor, fake_build, monkeypatch
):
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    monkeypatch.setattr(child, "Progress", lambda: Progress(Rules(quiet=0.3, intervals=1.0, others=20)))
    prompts = {"stuck": "BEWARE", "well": ENDLESS}
    async with (
        supervisor(fake_build("stuck=BEWARE")) as owner,
        owner.acquire(model()) as stuck,
        asyncio.TaskGroup() as tasks,
    ):
        async with owner.acquire(model()) as well:
            assert well.child == stuck.child
            asked = {name: tasks.create_task(_generate(stuck, text)) for name, text in prompts.items()}
            await until(lambda: owner._plan.children[stuck.child].superseded)
            async with owner.acquire(model()) as newer:
                assert newer.child != stuck.child
            await asyncio.sleep(0.3)
            assert await owner.cause_of_death(stuck.child, 0) is None  # while another works on it
            asked["well"].cancel()
            await asyncio.wait([asked["well"]])
        assert "gave no token while others went on" in (await owner.cause_of_death(stuck.child, 5) or "")


async def _generate(lease: Lease, prompt: str) -> None:
    body = json.dumps({"prompt": prompt, "stream": True}).encode()
    await ask(lease.endpoint, "/completion", 30, "POST", body)


async def _sick(owner, lease: Lease, prompt: str, seconds: float) -> str | None:
    """What ends the child while it works on ``prompt``, within that time."""
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(_generate(lease, prompt))
        cause = await owner.cause_of_death(lease.child, seconds)
        asked.cancel()
    return cause


@pytest.mark.parametrize(
    "line",
    [
        "CUDA~error:~unspecified~launch~failure",
        "/src/ggml-cuda.cu:97:~CUDA~error",
        "terminate~called:~vk::DeviceLostError",
    ],
)
async def test_an_engine_that_says_its_device_is_lost_and_stands_still_is_ended(
    supervisor, fake_build, monkeypatch, line
):
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    monkeypatch.setattr(watch, "_LINGER", 0.3)
    async with supervisor(fake_build(f"says={line},stall=2")) as owner, owner.acquire(model()) as lease:
        cause = await _sick(owner, lease, "hi", 10)
        assert cause is not None
        assert "its device is lost, and nothing has moved since" in cause


@pytest.mark.parametrize(
    ("faults", "prompt"),
    [
        # what a client can have written to an engine's log
        ("says=root~::=~GGML_ASSERT,stall=2", "hi"),
        ("says=parse~error:~last~read:~'CUDA~error',stall=2", "hi"),
        # an engine that goes on has lost nothing
        ("says=CUDA~error:~none~at~all,delay=0.02", ENDLESS),
    ],
)
async def test_a_line_of_the_log_ends_no_engine_by_itself(
    supervisor, fake_build, monkeypatch, faults, prompt
):
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    monkeypatch.setattr(watch, "_LINGER", 0.3)
    async with supervisor(fake_build(faults)) as owner, owner.acquire(model()) as lease:
        assert await _sick(owner, lease, prompt, 1.5) is None


async def test_what_clients_had_written_to_the_log_is_not_told_to_others(supervisor, fake_build):
    """An engine that dies is told with its own last words alone."""
    for said, told in (
        ("error:~my~secret~grammar", ""),
        ("/src/a.cpp:12:~GGML_ASSERT(n~>~0)~failed", "GGML_ASSERT(n > 0)"),
    ):
        faults = f"says={said},exit-at=mid-stream,exit-code=-6"
        async with supervisor(fake_build(faults)) as owner, owner.acquire(model()) as lease:
            cause = await _sick(owner, lease, "hi", 10)
            assert cause is not None
            assert "SIGABRT" in cause
            assert "secret" not in cause
            assert told in cause


async def test_a_child_whose_client_is_slow_to_read_or_to_send_is_well(supervisor, fake_build, monkeypatch):
    """It is held for a request, and none of its slots works."""
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    async with supervisor(fake_build(), stall_wait=0.3) as owner, owner.acquire(model()) as lease:
        assert await owner.cause_of_death(lease.child, 1.5) is None


async def test_a_zombie_counts_as_dead(supervisor, fake_build):
    """The exit is learnt from wait(), so a process that nobody has reaped yet is never taken for a live one."""
    async with supervisor(fake_build()) as owner, owner.acquire(model()) as lease:
        pid = owner.status()[0].pid
        os.kill(pid, signal.SIGKILL)
        assert await owner.cause_of_death(lease.child, 5)
        assert not psutil.pid_exists(pid)
        assert owner.status() == ()


@pytest.mark.parametrize(
    "faults", ["grandchild", "grandchild,ignore-sigterm=1", "grandchild,exit-at=request"]
)
async def test_a_signal_is_only_sent_while_the_pid_is_the_childs_own(
    supervisor, fake_build, monkeypatch, faults
):
    """Not even to a group whose leader was reaped: its number may be a stranger's by then."""
    sent: list[tuple[int, float]] = []

    def remembering(real):
        def send(pid: int, number: int) -> None:
            sent.append((pid, start_time(pid)))
            real(pid, number)

        return send

    for name in ("kill", "killpg"):
        monkeypatch.setattr(children.os, name, remembering(getattr(os, name)))
    async with supervisor(fake_build(faults)) as owner:
        async with owner.acquire(model(), keep_alive=0.0) as lease:
            process = psutil.Process(owner.status()[0].pid)
            [grandchild] = process.children()
            born = start_time(process.pid)
            if "exit-at" in faults:
                body = b'{"prompt": "hi"}'
                await ask(lease.endpoint, "/completion", 5, "POST", body)
                assert await owner.cause_of_death(lease.child, 5)
        await until(lambda: owner.status() == ())
        await until(lambda: not alive(grandchild))
    assert {pid for pid, _ in sent} == {process.pid}
    assert {started for _, started in sent} == {born}  # 0.0 would be a pid that is nobody's, or a stranger's


async def test_a_build_removed_under_a_running_child_is_told_at_the_next_start(supervisor, fake_build):
    health, told = await remove_the_build(supervisor, fake_build())
    assert health == 200
    assert "could not be started" in told


async def test_a_wall_clock_that_jumps_unloads_nothing(supervisor, fake_build, monkeypatch):
    assert await turn_the_clock(supervisor, fake_build(), monkeypatch) == [True, True]


def test_an_endpoint_never_holds_a_key_in_the_arguments(fake_build, short_folder):
    from llamamgr.core.config import NO_SETTINGS
    from llamamgr.plan.events import HOST, Placement
    from llamamgr.plan.memory import shape_of
    from llamamgr.supervise.lease import NO_WISHES
    from llamamgr.supervise.wishes import Wish

    wish = Wish(model(), fake_build(unix_socket=False), shape_of(model(), 0, 1), NO_WISHES, NO_SETTINGS)
    made = prepare(wish, Placement({HOST: 1}), child="c1", run=short_folder, state=short_folder)
    assert made.endpoint.api_key
    assert made.endpoint.api_key not in " ".join(made.argv)
    assert made.environment["LLAMA_API_KEY"] == made.endpoint.api_key
