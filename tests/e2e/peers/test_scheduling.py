"""Who waits for whom: hung loads, loads that nobody waits for any more, starvation, unloads that take their time."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon, until
from tests.e2e.peers.clients import OLLAMA, OPENAI, Answer, ask, body_of, endless
from tests.e2e.peers.conftest import A, B, Engine, child_of, stop_process

STOP_SEQUENCE = 4.0  # SIGTERM, 2 s, SIGTERM, 2 s, SIGKILL
PROMISED = 15.0  # until an engine that hangs is noticed
SLACK = 5.0  # of a machine that is busy with other things; what is looked for takes for ever


def test_a_health_check_that_hangs_holds_no_request_beyond_its_deadline(serve, engine, record_property):
    daemon, hang = _hanging_load(serve, engine, load_wait=1.5)
    asked = time.monotonic()
    answer = Answer(daemon.url, OPENAI, body_of(OPENAI, A, stream=False))
    hang()
    answer.rest()
    took = time.monotonic() - asked
    assert answer.status >= 500
    assert "not ready after 1.5 s" in answer.error
    assert took < 1.5 + STOP_SEQUENCE + SLACK
    assert ask(daemon, B).status == 200
    record_property("measured", f"deadline 1.5 s: told after {took:.1f} s")


def _hanging_load(serve, engine: Engine, load_wait: float):
    """A daemon whose model A never gets ready, and what makes its load hang once it is asked for."""
    if engine.name == "fake":
        daemon = serve(engine, {A: {"env": {"FAKE_LLAMA": "hung-health"}}}, {"load_wait": load_wait})
        return daemon, lambda: None
    # a real engine waits at a pipe that nobody writes its adapter to, and is stopped there
    pipe = Path(os.environ["LLAMAMGR_HOME"]) / "adapter.gguf"
    os.mkfifo(pipe)
    daemon = serve(engine, {A: {"adapters": [str(pipe)]}}, {"load_wait": load_wait})

    def hang() -> None:
        until(lambda: list((daemon.home / "run").glob("c1-*.sock")))
        stop_process(child_of(daemon, A)["pid"])

    return daemon, hang


def test_a_load_whose_client_left_is_finished_and_stays_for_its_keep_alive(serve, engine, record_property):
    daemon = serve(engine, {A: {"env": {"ENGINE_PRELUDE": "sleep 1"}}})
    answer = Answer(daemon.url, OLLAMA, body_of(OLLAMA, A))
    until(lambda: daemon.children())
    answer.leave()
    assert child_of(daemon, A)["state"] == "loading"
    until(lambda: child_of(daemon, A)["state"] == "ready")
    child = child_of(daemon, A)
    stays = child["expires"] - time.time()
    assert 290 < stays <= 300
    assert ask(daemon, A).status == 200
    assert child_of(daemon, A)["pid"] == child["pid"]
    record_property("measured", f"ready without its client, stays {stays:.0f} s, answers the next one")


def test_a_model_waited_for_gets_its_turn_while_another_is_never_idle(serve, engine, record_property):
    patience = 1.0
    daemon = serve(engine, scheduler={"max_models": 1, "patience": patience})
    over = threading.Event()
    answered: list[bool] = []

    def keep_busy() -> None:
        current = endless(daemon, B, tokens=700)
        while not over.is_set():
            following = endless(daemon, B, tokens=700)  # before the other ends: there is never none
            current.rest()
            answered.append(current.clean)
            current = following
        current.leave()

    clients = [threading.Thread(target=keep_busy) for _ in range(2)]
    for client in clients:
        client.start()
    until(lambda: len(answered) >= 3)
    asked = time.monotonic()
    waited = ask(daemon, A)
    took, during = time.monotonic() - asked, len(answered)
    until(lambda: len(answered) > during + 3)
    over.set()
    for client in clients:
        client.join()
    assert waited.status == 200
    assert took < patience + 5
    assert all(answered)
    record_property(
        "measured",
        f"waited {took:.1f} s (patience {patience:g} s); the busy clients lost none of {len(answered)}",
    )


@pytest.fixture
def stubborn(serve, engine) -> Daemon:
    """A and B are loaded, and A's engine heeds no SIGTERM."""
    env = {"FAKE_LLAMA": "ignore-sigterm"} if engine.name == "fake" else {}
    daemon: Daemon = serve(engine, {A: {"env": env}}, {"max_models": 2})
    for model in (A, B):
        assert ask(daemon, model).status == 200
    if engine.name == "real":
        stop_process(child_of(daemon, A)["pid"])
    return daemon


def test_an_unload_that_takes_its_time_holds_no_other_model_up(stubborn, record_property):
    stubborn.control.call("POST", "/control/stop-model", {"model": A})
    asked = time.monotonic()
    taken = []
    for _ in range(20):
        before = time.monotonic()
        assert ask(stubborn, B).status == 200
        taken.append(time.monotonic() - before)
    assert child_of(stubborn, A)["state"] == "stopping"
    until(lambda: len(stubborn.children()) == 1, 15)
    gone = time.monotonic() - asked
    assert max(taken) < 1.0
    record_property(
        "measured", f"another model: {max(taken) * 1000:.0f} ms at most while one took {gone:.1f} s to go"
    )


def test_a_swap_behind_an_engine_that_will_not_stop_is_bounded(stubborn, record_property):
    """Three seconds for a prompt cache that is not told, and the stop sequence."""
    asked = time.monotonic()
    assert ask(stubborn, "selftest-c").status == 200
    took = time.monotonic() - asked
    assert took < 3 + STOP_SEQUENCE + SLACK
    record_property("measured", f"the next model answered after {took:.1f} s")


def test_an_engine_that_hangs_when_ready_is_noticed_while_a_request_waits_on_it(
    serve, engine, record_property
):
    daemon = serve(engine)
    ask(daemon, A)
    hung = child_of(daemon, A)["pid"]
    stop_process(hung)
    asked = time.monotonic()
    answer = ask(daemon, A)
    took = time.monotonic() - asked
    assert answer.status == 200, answer.data
    assert took < PROMISED + SLACK
    assert child_of(daemon, A)["pid"] != hung
    record_property(
        "measured", f"replaced, and the waiting request answered, after {took:.1f} s (promise: 15 s)"
    )


def test_a_stream_on_an_engine_that_hangs_is_told_an_error(serve, engine, record_property):
    daemon = serve(engine)
    answer = endless(daemon, A)
    stop_process(child_of(daemon, A)["pid"])
    stopped = time.monotonic()
    answer.rest()
    took = time.monotonic() - stopped
    assert not answer.clean
    assert "stopped answering" in answer.error
    assert took < PROMISED + SLACK
    record_property("measured", f"error in the dialect after {took:.1f} s (promise: 15 s)")


def test_a_swap_never_interrupts_a_stream(serve, engine, record_property):
    daemon = serve(engine, scheduler={"max_models": 1, "patience": 0.1})
    answer = endless(daemon, A, tokens=400)
    other = ask(daemon, B)
    answer.rest()
    assert other.status == 200
    assert answer.clean
    assert answer.last["eval_count"] == 400
    record_property("measured", "400 of 400 tokens came, then the other model was loaded")


def test_queue_and_loads_are_dropped_with_their_client(serve, engine, record_property):
    daemon = serve(engine, scheduler={"max_models": 1, "patience": 60})
    stream = endless(daemon, A)
    waiting = [Answer(daemon.url, OLLAMA, body_of(OLLAMA, B)) for _ in range(3)]
    for answer in waiting:
        answer.leave()
    stream.leave()
    until(lambda: child_of(daemon, A)["busy"] == 0)
    assert ask(daemon, A).status == 200
    assert [child["model"]["name"] for child in daemon.children()] == [f"{A}:latest"]
    record_property("measured", "3 clients left the queue: nothing was loaded for them")


def test_an_engine_that_is_killed_when_idle_is_not_taken_for_alive(serve, engine, record_property):
    """A killed process that nobody has reaped is a zombie: a pid that answers ``kill(pid, 0)``."""
    daemon = serve(engine)
    ask(daemon, A)
    pid = child_of(daemon, A)["pid"]
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: daemon.children() == [], 2)
    noticed = time.monotonic() - killed
    assert ask(daemon, A).status == 200
    assert child_of(daemon, A)["pid"] != pid
    record_property(
        "measured", f"noticed and reaped after {noticed * 1000:.0f} ms, the next request answered"
    )


def test_an_engine_that_answers_other_paths_while_it_loads_is_not_ready(serve, fake_engine, record_property):
    """Builds of a year ago answer /v1/models during the load."""
    daemon = serve(fake_engine, {A: {"env": {"FAKE_LLAMA": "early-models,slow-load=1"}}}, unix_socket=False)
    asked = time.monotonic()
    answer = ask(daemon, A)
    took = time.monotonic() - asked
    assert answer.status == 200, answer.data
    assert took >= 1
    record_property("measured", f"a load of 1 s: answered after {took:.1f} s, no request reached it before")
