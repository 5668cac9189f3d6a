"""The supervisor over real child processes that misbehave on demand."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from llamamgr.core.cards import ModelCard
from llamamgr.core.config import Config, GroupConfig, ModelConfig
from llamamgr.core.errors import BusyError, ConfigError, EngineError
from llamamgr.supervise import pace, watch
from llamamgr.supervise.estimates import Estimates
from llamamgr.supervise.lease import LoadOptions
from llamamgr.supervise.measured import Measured
from llamamgr.supervise.probe import ask
from tests.fakes.fake_llama_server import ENDLESS
from tests.supervise.conftest import MIB, TINY, model


async def until(true, deadline: float = 10.0) -> None:
    async with asyncio.timeout(deadline):
        while not true():
            await asyncio.sleep(0.01)


def alive(process: psutil.Process) -> bool:
    """Running, and not a zombie that its new parent has yet to reap."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_lease_reaches_a_child_that_answers(supervisor, fake_build):
    async with supervisor(fake_build()) as owner, owner.acquire(model()) as lease:
        answer = await ask(lease.endpoint, "/health", 5)
        assert answer is not None
        assert answer.status == 200
        assert lease.context == 2048
        assert [child.state for child in owner.status()] == ["ready"]


async def test_concurrent_first_requests_share_one_start(supervisor, fake_build):
    async def one(owner) -> str:
        async with owner.acquire(model()) as lease:
            return lease.child

    async with supervisor(fake_build("slow-load=0.2")) as owner:
        assert set(await asyncio.gather(*(one(owner) for _ in range(20)))) == {"c1"}


async def test_a_smaller_context_uses_the_child_that_runs_and_a_larger_one_replaces_it(
    supervisor, fake_build
):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model(), LoadOptions(context=512)) as first:
            pass
        async with owner.acquire(model(), LoadOptions(context=256)) as second:
            assert second.child == first.child
        async with owner.acquire(model(), LoadOptions(context=1024)) as third:
            assert third.child != first.child
            assert third.context == 1024
        await until(lambda: len(owner.status()) == 1)


@pytest.mark.parametrize("when", ["start", "load"])
async def test_an_exit_before_ready_fails_at_once_with_code_and_log(supervisor, fake_build, when):
    async with supervisor(fake_build(f"exit-at={when},exit-code=7")) as owner:
        with pytest.raises(EngineError, match="exited with code 7"):
            async with asyncio.timeout(5), owner.acquire(model()):
                pass


async def test_a_program_that_cannot_run_is_named(supervisor, fake_build):
    build = fake_build()
    Path(build.tool("llama-server")).unlink()
    async with supervisor(build) as owner:
        with pytest.raises(EngineError, match="could not be started"):
            async with owner.acquire(model()):
                pass


async def test_a_load_past_its_deadline_is_ended_and_says_so(supervisor, fake_build):
    async with supervisor(fake_build("never-healthy"), load_wait=0.3) as owner:
        with pytest.raises(EngineError, match=r"not ready after 0\.3 s"):
            async with owner.acquire(model()):
                pass


async def test_a_hung_health_endpoint_cannot_hold_the_deadline_up(supervisor, fake_build):
    async with supervisor(fake_build("hung-health"), load_wait=0.3) as owner:
        with pytest.raises(EngineError, match="not ready after"):
            async with asyncio.timeout(8), owner.acquire(model()):
                pass


async def test_a_flood_of_output_never_blocks_the_child(supervisor, fake_build):
    async with (
        supervisor(fake_build("flood-stdout")) as owner,
        asyncio.timeout(15),
        owner.acquire(model()) as lease,
    ):
        assert (await ask(lease.endpoint, "/health", 5)).status == 200


async def test_an_idle_child_goes_when_its_keep_alive_ran_out(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model(), keep_alive=0.05):
            pid = owner.status()[0].pid
        await until(lambda: owner.status() == ())
        assert not psutil.pid_exists(pid)


async def test_a_model_whose_file_was_replaced_makes_way_for_the_new_one_once_it_is_idle(
    supervisor, fake_build
):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model("other")):
            pass
        async with (
            owner.acquire(model(), keep_alive=math.inf) as former,
            owner.acquire(model(modified=1.0), keep_alive=math.inf) as newer,
        ):
            assert newer.child != former.child
            assert (await ask(former.endpoint, "/health", 5)).status == 200
        await until(lambda: len(owner.status()) == 2)
        assert {child.id for child in owner.status()} > {newer.child}
        async with owner.acquire(model(modified=1.0)) as same:
            assert same.child == newer.child


async def test_models_of_one_file_share_their_child_whatever_their_names(supervisor, fake_build):
    base = model()
    made = msgspec.structs.replace(base, name="made:latest", system="Be brief.")
    async with supervisor(fake_build()) as owner:
        for card in (base, made, base):
            async with owner.acquire(card, keep_alive=math.inf):
                pass
        assert len(owner.status()) == 1


async def test_unloading_a_busy_model_waits_for_its_request(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model()) as lease:
            assert await owner.unload(model())
            assert (await ask(lease.endpoint, "/health", 5)).status == 200
        await until(lambda: owner.status() == ())
        assert not await owner.unload(model())


async def test_a_child_that_was_unloaded_under_its_request_is_known_from_one_that_died(
    supervisor, fake_build
):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model()) as lease:
            assert await owner.unload(model(), now=True)
            assert await owner.cause_of_death(lease.child, 5)
            assert owner.was_unloaded(lease.child)
        async with owner.acquire(model()) as lease:
            os.kill(owner.status()[0].pid, signal.SIGKILL)
            assert await owner.cause_of_death(lease.child, 5)
            assert not owner.was_unloaded(lease.child)


async def test_a_killed_child_leaves_its_cause_and_the_next_request_gets_a_new_one(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model()) as lease:
            os.kill(owner.status()[0].pid, signal.SIGKILL)
            cause = await owner.cause_of_death(lease.child, 5)
            assert cause is not None
            assert "killed by SIGKILL" in cause
        async with owner.acquire(model()) as again:
            assert again.child != lease.child


async def test_a_child_that_ignores_sigterm_is_killed(supervisor, fake_build):
    async with supervisor(fake_build("ignore-sigterm")) as owner:
        async with owner.acquire(model(), keep_alive=0.0):
            pid = owner.status()[0].pid
        await until(lambda: owner.status() == (), 10)
        assert not psutil.pid_exists(pid)


async def test_a_grandchild_that_holds_the_pipes_goes_with_the_child(supervisor, fake_build):
    async with supervisor(fake_build("grandchild")) as owner:
        async with owner.acquire(model(), keep_alive=0.0):
            family = psutil.Process(owner.status()[0].pid).children(recursive=True)
            assert family
        await until(lambda: owner.status() == ())
        await until(lambda: not any(alive(process) for process in family))


async def test_without_room_the_least_recently_used_idle_child_makes_way(supervisor, fake_build):
    async with supervisor(fake_build(), memory=400 * MIB, parallel=1) as owner:
        for name in ("first", "second", "first", "third"):
            async with owner.acquire(model(name, size=100 * MIB)):
                pass
        await until(lambda: len(owner.status()) == 2)
        assert {child.model.name for child in owner.status()} == {"first:latest", "third:latest"}


async def test_a_model_beyond_the_whole_budget_is_refused_with_the_figures(supervisor, fake_build):
    async with supervisor(fake_build(), memory=50 * MIB) as owner:
        with pytest.raises(BusyError, match="does not fit into memory"):
            async with owner.acquire(model(size=100 * MIB)):
                pass


async def test_a_waiting_client_that_leaves_frees_its_place_and_the_load_stays_warm(supervisor, fake_build):
    async with supervisor(fake_build("slow-load=0.3")) as owner:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), owner.acquire(model()):
                pass
        await until(lambda: [child.state for child in owner.status()] == ["ready"])
        assert owner.status()[0].busy == 0


async def test_a_queue_that_is_full_refuses_with_retry_after(supervisor, fake_build):
    async with supervisor(fake_build("slow-load=0.5"), max_queue=1) as owner, asyncio.TaskGroup() as tasks:

        async def first() -> None:
            async with owner.acquire(model()):
                pass

        tasks.create_task(first())
        await until(lambda: len(owner.status()) == 1)
        with pytest.raises(BusyError) as caught:
            async with owner.acquire(model()):
                pass
        assert caught.value.retry_after >= 1


async def test_a_model_that_keeps_failing_is_answered_from_the_breaker(supervisor, fake_build):
    async with supervisor(fake_build("exit-at=load")) as owner:
        for _ in range(2):
            with pytest.raises(EngineError):
                async with owner.acquire(model()):
                    pass
        with pytest.raises(BusyError, match="keeps failing") as caught:
            async with owner.acquire(model()):
                pass
        assert caught.value.retry_after >= 1


async def test_the_slots_of_a_child_bound_its_leases(supervisor, fake_build):
    running = peak = 0

    async def one(owner) -> None:
        nonlocal running, peak
        async with owner.acquire(model()):
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0)
            running -= 1

    async with supervisor(fake_build(), parallel=2) as owner:
        await asyncio.gather(*(one(owner) for _ in range(30)))
    assert peak == 2


async def test_loopback_tcp_serves_where_a_build_has_no_unix_sockets(supervisor, fake_build):
    async with supervisor(fake_build(unix_socket=False)) as owner, owner.acquire(model()) as lease:
        assert lease.endpoint.port > 0
        assert lease.endpoint.api_key
        assert (await ask(lease.endpoint, "/health", 5)).status == 200


async def test_a_stopped_process_is_noticed_while_a_request_waits_on_it(supervisor, fake_build, monkeypatch):
    monkeypatch.setattr(watch, "_PROBE_DEADLINE", 0.2)
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    async with supervisor(fake_build()) as owner, owner.acquire(model()) as lease:
        os.kill(owner.status()[0].pid, signal.SIGSTOP)
        cause = await owner.cause_of_death(lease.child, 10)
        assert cause is not None
        assert "stopped answering /health" in cause


async def test_a_process_that_is_halted_while_it_loads_is_not_waited_for(supervisor, fake_build):
    async with supervisor(fake_build("slow-load=60"), load_wait=60) as owner, asyncio.TaskGroup() as tasks:

        async def ask() -> str:
            try:
                async with owner.acquire(model()):
                    return "ready"
            except EngineError as error:
                return error.what

        asked = tasks.create_task(ask())
        await until(lambda: owner.status() and owner.status()[0].pid)
        os.kill(owner.status()[0].pid, signal.SIGSTOP)
        async with asyncio.timeout(20):
            assert "was halted (SIGSTOP) while it loaded" in await asked


async def test_a_build_that_keeps_crashing_gives_way_to_the_former_one_and_waiters_move_along(
    supervisor, fake_build
):
    bad, good = fake_build(name="new"), fake_build(name="old")
    async with supervisor(bad, good) as owner:
        used = []
        for _ in range(3):
            async with asyncio.timeout(20), owner.acquire(model()) as lease:
                used.append(lease.build.card.instance)
                os.kill(owner.status()[0].pid, signal.SIGSEGV)
                await owner.cause_of_death(lease.child, 5)
        async with owner.acquire(model()) as lease:
            assert [*used, lease.build.card.instance] == ["new", "new", "new", "old"]
            assert (await ask(lease.endpoint, "/health", 5)).status == 200


async def test_memory_that_was_measured_takes_the_place_of_the_estimate(supervisor, fake_build):
    big = model("big", kv_bytes_per_token=1)
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(big):
            pass
        [child] = owner.status()
        estimate = owner._plan.children[child.id].placement.total
        await owner.unload(big)
        await until(lambda: owner.status() == ())
        async with owner.acquire(big):
            [again] = owner.status()
        assert 0 < owner._plan.children[again.id].placement.total < estimate


async def test_a_models_settings_decide_how_its_child_is_run(supervisor, fake_build):
    tiny = ModelConfig(context=300, parallel=1, flags={"threads": 3}, env={"FAKE_NOTE": "1"}, pin=True)
    async with supervisor(fake_build(), config={"models": {"tiny": tiny}}) as owner:
        async with owner.acquire(model(), keep_alive=0) as lease:
            assert lease.context == 300
        [child] = owner.status()
        process = psutil.Process(child.pid)
        assert process.cmdline()[-2:] == ["--threads", "3"]
        assert process.environ()["FAKE_NOTE"] == "1"
        assert (child.slots, child.pinned, child.expires) == (1, True, float("inf"))


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("threds", "threads"),
        ("ctx-size", "context"),
        ("host", "listen"),
        ("zzz", "llamamgr exec default llama-server --help"),
    ],
)
async def test_a_wrong_flag_is_told_with_what_was_meant(supervisor, fake_build, flag, hint):
    async with supervisor(fake_build(), config={"models": {"tiny": ModelConfig(flags={flag: 1})}}) as owner:
        with pytest.raises(ConfigError) as caught:
            async with owner.acquire(model()):
                pass
        assert hint in caught.value.hint
        assert caught.value.status == 500  # no client can mend it


async def test_a_context_beyond_the_trained_one_is_told_by_the_log(fake_build, supervisor, caplog) -> None:
    settings = {"models": {"tiny": ModelConfig(context=10_000_000)}}
    async with supervisor(fake_build(), config=settings) as owner, owner.acquire(model()) as lease:
        assert lease.context == 2048
    assert "gets 2048 tokens of context, all it was trained for; asked were 10000000" in caplog.text


async def test_a_new_configuration_drains_only_the_children_it_concerns(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model("one")) as first, owner.acquire(model("two")):
            changed = Config(
                scheduler=owner._config.scheduler, models={"one": ModelConfig(flags={"threads": 2})}
            )
            assert owner.reconfigure(changed) == ["one:latest"]
            assert (await ask(first.endpoint, "/health", 5)).status == 200
            async with owner.acquire(model("one")) as newer:
                assert newer.child != first.child
            kept = next(child.id for child in owner.status() if child.model.name == "two:latest")
        await until(lambda: len(owner.status()) == 2)
        async with owner.acquire(model("two")) as same:
            assert same.child == kept


GENERAL, SMALL, LARGE = {"context": 512}, {"models": {"tiny": ModelConfig(context=256)}}, {"context": 1024}


@pytest.mark.parametrize(
    ("former", "changed", "context"),
    [
        ({}, SMALL, 256),
        (SMALL, {}, 2048),
        ({}, GENERAL, 512),
        (GENERAL, LARGE, 1024),
        (LARGE, GENERAL | SMALL, 256),
    ],
)
async def test_a_context_that_changed_starts_the_model_anew(supervisor, fake_build, former, changed, context):
    async with supervisor(fake_build(), config=former) as owner:
        async with owner.acquire(model()) as first:
            new = Config(scheduler=owner._config.scheduler, **changed)
            assert owner.reconfigure(new) == ["tiny:latest"]
            assert (await ask(first.endpoint, "/health", 5)).status == 200
        async with owner.acquire(model()) as newer:
            assert newer.context == context
        await until(lambda: len(owner.status()) == 1)
        assert owner.reconfigure(new) == []


async def test_a_context_that_a_request_asked_for_is_not_touched_by_the_settings(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model(), LoadOptions(context=700)) as first:
            pass
        async with owner.acquire(model("other", context=400)):
            pass
        new = Config(scheduler=owner._config.scheduler, **GENERAL)
        assert owner.reconfigure(new) == [], "what was trained for less stays as it is too"
        async with owner.acquire(model(), LoadOptions(context=700)) as same:
            assert same.child == first.child


async def test_ps_tells_how_fast_answers_come(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model()) as lease:
            assert owner.status()[0].tokens_per_second == 0.0
            body = json.dumps({"prompt": ENDLESS, "n_predict": 50}).encode()
            assert (await ask(lease.endpoint, "/completion", 10, "POST", body)).status == 200
        await owner.look()
        [child] = owner.status()
        assert 10 < child.tokens_per_second < 1000  # the fake sleeps a millisecond before each
        assert child.memory_planned > child.memory > 0


async def test_ps_tells_the_pace_of_an_answer_that_is_still_coming(supervisor, fake_build, monkeypatch):
    monkeypatch.setattr(watch, "INTERVAL", 0.05)
    async with supervisor(fake_build("delay=0.005")) as owner, owner.acquire(model()) as lease:
        body = json.dumps({"prompt": ENDLESS, "stream": True}).encode()
        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(ask(lease.endpoint, "/completion", 30, "POST", body))
            await until(lambda: owner.status()[0].tokens_per_second > 0)
            assert 10 < owner.status()[0].tokens_per_second < 400
            asked.cancel()


async def test_children_that_have_done_nothing_are_not_asked(supervisor, fake_build, monkeypatch):
    asked = []
    real = pace.figures
    monkeypatch.setattr(pace, "figures", lambda *a: (asked.append(a), real(*a))[1])
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model()):
            pass
        await owner.look()
        before = len(asked)
        await owner.look()
        assert (before, len(asked)) == (1, 1)


async def test_settings_of_requests_restart_no_child(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model()) as first:
            pass
        settings = {"defaults": {"temperature": 0.5}, "clamps": {"n": [None, 2]}, "ttl": "1h"}
        changed = msgspec.convert({"models": {"tiny": settings}}, Config)
        assert owner.reconfigure(msgspec.structs.replace(changed, scheduler=owner._config.scheduler)) == []
        async with owner.acquire(model()) as again:
            assert again.child == first.child


async def test_a_ttl_ends_a_model_that_was_to_stay_for_ever(supervisor, fake_build):
    async with supervisor(fake_build(), config={"models": {"tiny": ModelConfig(ttl=0.2)}}) as owner:
        async with owner.acquire(model(), keep_alive=math.inf):
            pass
        [child] = owner.status()
        assert child.expires < time.time() + 60
        await until(lambda: owner.status() == ())


async def test_a_ttl_that_comes_by_a_reload_holds_for_what_is_loaded_already(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model(), keep_alive=math.inf):
            pass
        changed = Config(scheduler=owner._config.scheduler, models={"tiny": ModelConfig(ttl=0.1)})
        assert owner.reconfigure(changed) == []
        await until(lambda: owner.status() == ())


async def test_models_of_an_exclusive_group_are_not_loaded_together(supervisor, fake_build):
    groups = {"big": GroupConfig(("one", "two"))}
    async with supervisor(fake_build(), config={"groups": groups}) as owner:
        for name in ("one", "three", "two"):
            async with owner.acquire(model(name)):
                pass
        await until(lambda: len(owner.status()) == 2)
        assert {child.model.name for child in owner.status()} == {"two:latest", "three:latest"}


async def test_what_shares_a_group_is_looked_up_off_the_loop(supervisor, fake_build):
    groups = {"big": GroupConfig(("one", "two"))}
    asked: list[str] = []

    def look(name: str) -> ModelCard:
        asked.append(threading.current_thread().name)
        return model(name)

    async with supervisor(fake_build(), config={"groups": groups}) as owner:
        owner._estimates._card_of = look
        async with owner.acquire(model("one")):
            pass
    assert asked
    assert threading.main_thread().name not in asked


def test_a_file_that_changed_is_read_again_and_one_that_could_not_be_read_too(tmp_path):
    file = tmp_path / "m.gguf"
    estimates = Estimates(Config(), Measured(tmp_path / "measured.json"))
    card = model(parts=(str(file),))

    def told() -> str | None:
        header = estimates.files(card, LoadOptions(), ModelConfig()).header
        return str(header.metadata["general.name"]) if header else None

    file.write_bytes(b"GGUF")  # is still being copied
    assert told() is None
    names = []
    for golden in (TINY, TINY.with_name("tinyembed.gguf")):
        shutil.copy(golden, file)
        names.append(told())
    assert names == ["tiny-chain", "emb"]


async def test_a_request_that_names_no_context_is_not_served_by_somebody_elses_small_one(
    supervisor, fake_build
):
    async with supervisor(fake_build()) as owner:
        async with owner.acquire(model(), LoadOptions(context=64)) as small:
            assert small.context == 64
        async with owner.acquire(model()) as usual:
            assert usual.context == 2048


async def test_the_general_context_gives_way_to_a_models_own_and_that_to_a_requests(
    supervisor, fake_build, caplog
):
    config = {"context": 1024, "models": {"own": ModelConfig(context=512)}}
    async with supervisor(fake_build(), config=config) as owner:
        for name, asked, context in (
            ("any", 0, 1024),
            ("any", 256, 1024),
            ("own", 0, 512),
            ("own", 700, 700),
        ):
            async with owner.acquire(model(name), LoadOptions(context=asked)) as lease:
                assert lease.context == context
        small = model("small", context=128)
        async with owner.acquire(small) as lease:
            assert lease.context == 128
    assert "all it was trained for" not in caplog.text, "nobody asked for more"


async def test_a_request_with_more_priority_is_served_before_those_that_came_earlier(supervisor, fake_build):
    served: list[int] = []

    async def ask_for(owner, priority: int) -> None:
        async with owner.acquire(model(), priority=priority):
            served.append(priority)

    async with (
        supervisor(fake_build(), parallel=1) as owner,
        asyncio.TaskGroup() as tasks,
        owner.acquire(model()),
    ):
        for count, priority in enumerate((0, 5, 1), start=1):
            tasks.create_task(ask_for(owner, priority))
            await until(lambda count=count: owner.status()[0].queued == count)
    assert served == [5, 1, 0]


async def test_a_child_is_announced_while_it_lives_before_it_is_asked_to_stop(supervisor, fake_build):
    async with supervisor(fake_build()) as owner:
        told = []
        async with owner.acquire(model()) as lease:
            process = psutil.Process(owner.status()[0].pid)
        owner.on_stopping = lambda endpoint: told.append((endpoint, alive(process)))
        await owner.unload(model())
        await until(lambda: not owner.status())
        assert told == [(lease.endpoint, True)]
