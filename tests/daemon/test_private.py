"""``LlamaServer`` over real child processes that misbehave on demand."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pexpect
import psutil
import pytest

import llamamgr
from llamamgr import LlamaServer
from llamamgr.core.errors import EngineError, MissingToolError, NotFoundError, UsageError
from llamamgr.wire.neutral import Finished, TextDelta, ThinkingDelta, ToolCallDelta
from tests.conftest import GOLDEN_MODELS

ANSWER = "Hello from the tiny llama."
ENDLESS = "count forever"
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def until(true: Callable[[], bool], deadline: float = 10.0) -> None:
    end = time.monotonic() + deadline
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("llamamgr-private-*"))


def children() -> list[psutil.Process]:
    return psutil.Process().children()


def owner(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A program of its own that owns a private server."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# -- asking


def test_nothing_is_started_before_the_first_use(install_fake):
    install_fake()
    before, running, threads = folders(), children(), threading.active_count()
    with LlamaServer("selftest") as server:
        server.cache_identity  # noqa: B018 - asking for it must start nothing
        assert (folders(), children(), threading.active_count()) == (before, running, threads)
        server.start()
        assert folders() - before
    assert not folders() - before
    assert children() == running


def test_chat_gives_text_and_usage(install_fake):
    install_fake()
    with LlamaServer("selftest") as server:
        reply = server.chat("hello", think=False)
        assert (reply.text, str(reply), reply.thinking, reply.finish_reason) == (ANSWER, ANSWER, "", "stop")
        assert reply.usage.completion > 0
        assert server.chat([{"role": "user", "content": "hello"}], max_tokens=2).finish_reason == "length"


def test_a_stream_gives_the_pieces_and_then_the_whole(install_fake):
    install_fake()
    with LlamaServer("selftest") as server:
        stream = server.stream("hello", think=True)
        with pytest.raises(UsageError, match="not complete"):
            stream.reply  # noqa: B018
        assert list(stream) == ["Hello", " from", " the", " tiny", " llama", "."]
        assert (stream.reply.text, stream.reply.thinking) == (ANSWER, "Let me think.")


def test_events_tell_thinking_text_tool_calls_and_the_end(install_fake):
    install_fake()
    with LlamaServer("selftest") as server:
        assert [type(event) for event in server.stream("x", think=True, max_tokens=5).events()] == [
            ThinkingDelta,
            ThinkingDelta,
            ThinkingDelta,
            ThinkingDelta,
            TextDelta,
            Finished,
        ]
        stream = server.stream("weather?", tools=[TOOL])
        assert isinstance(next(iter(stream.events())), ToolCallDelta)
        [call] = server.chat("weather?", tools=[TOOL]).tool_calls
        assert (call.name, call.arguments) == ("get_weather", '{"city":"Paris"}')


async def test_the_same_is_there_for_programs_with_a_loop(install_fake):
    install_fake()
    async with LlamaServer("selftest") as server:
        await server.astart()
        assert (await server.achat("hello")).text == ANSWER
        stream = server.astream("hello")
        assert "".join([text async for text in stream]) == ANSWER
        assert stream.reply.text == ANSWER
        both = await asyncio.gather(server.achat("a"), server.achat("b"))
        assert {reply.text for reply in both} == {ANSWER}
    with pytest.raises(UsageError, match="closed"):
        await server.achat("hello")


async def test_cancelling_an_answer_stops_it_and_harms_no_other(install_fake):
    install_fake()
    async with LlamaServer("selftest") as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await server.achat(ENDLESS)
        assert (await server.achat("hello")).text == ANSWER


def test_messages_go_to_the_engine_as_they_are(install_fake):
    install_fake()
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with LlamaServer("selftest") as server, pytest.raises(UsageError, match="image input is not supported"):
        server.chat([{"role": "user", "content": [picture]}])


@pytest.mark.parametrize(
    ("messages", "parameters", "said"),
    [
        ("hi", {"stream": True}, "stream: not a parameter"),
        ("hi", {"n": 2}, "n: not a parameter"),
        ([], {}, "messages must be"),
        ([{"content": "x"}], {}, "messages must be"),
        (7, {}, "messages must be"),
        ("hi", {"seed": object()}, "no valid request"),
        ("hi", {"response_format": {"type": "xml"}}, "response_format must be"),
    ],
)
def test_what_makes_no_request_is_refused_before_anything_starts(messages, parameters, said):
    with LlamaServer("selftest") as server, pytest.raises(UsageError, match=said):
        server.chat(messages, **parameters)


def test_several_threads_are_answered_at_once(install_fake):
    install_fake("delay=0.02")
    answers: list[str] = []
    with LlamaServer("selftest", parallel=4) as server:
        asking = [
            threading.Thread(target=lambda: answers.append(server.chat("hello").text)) for _ in range(8)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert len(children()) == 1
    assert answers == [ANSWER] * 8


def test_its_address_is_told_while_every_slot_is_busy(install_fake):
    install_fake()
    with LlamaServer("selftest", parallel=1) as server:
        stream = iter(server.stream(ENDLESS))
        next(stream)
        assert server.base_url
        assert server.pid


def test_leaving_a_stream_early_frees_its_place(install_fake):
    install_fake()
    with LlamaServer("selftest", parallel=1) as server:
        for _ in server.stream(ENDLESS):
            break
        assert server.chat("hello").text == ANSWER


# -- where it answers


def test_other_clients_reach_it_by_address_and_key_and_nobody_without(install_fake):
    install_fake()
    body = {"messages": [{"role": "user", "content": "hello"}]}
    with LlamaServer("selftest") as server:
        url = f"{server.base_url}/chat/completions"
        assert url.startswith("http://127.0.0.1:")
        answer = httpx.post(url, json=body, headers={"Authorization": f"Bearer {server.api_key}"})
        assert answer.json()["choices"][0]["message"]["content"] == ANSWER
        assert httpx.post(url, json=body).status_code == 401
        assert server.socket == ""


def test_over_a_unix_socket_the_folder_keeps_strangers_out(install_fake):
    install_fake()
    with LlamaServer("selftest", transport="unix") as server:
        assert Path(server.socket).parent.stat().st_mode & 0o077 == 0
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=server.socket),
            base_url=server.base_url,
            headers={"Authorization": f"Bearer {server.api_key}"},
        ) as client:
            body = {"messages": [{"role": "user", "content": "hello"}]}
            answer = client.post("/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == ANSWER
        assert server.chat("hello").text == ANSWER


def test_a_unix_socket_that_the_build_cannot_have_is_refused(install_fake):
    install_fake(unix_socket=False)
    with LlamaServer("selftest", transport="unix") as server, pytest.raises(MissingToolError, match="UNIX"):
        server.start()


def test_the_cache_identity_is_of_build_model_and_options_and_never_of_a_launch(install_fake, monkeypatch):
    install_fake()

    def identity(**changes: object) -> str:
        with LlamaServer("selftest", **changes) as server:
            return server.cache_identity

    with LlamaServer("selftest") as server:
        before = server.cache_identity
        server.start()
        assert server.cache_identity == before
        assert server.base_url.rpartition(":")[2] not in before
    same = [identity(), identity(transport="unix"), identity(instance="default"), identity(parallel=3)]
    assert set(same) == {before}
    other = [identity(context=512), identity(threads=3)]
    with LlamaServer(GOLDEN_MODELS / "tinychat.gguf") as server:
        other.append(server.cache_identity)
    assert len({before, *other}) == 4
    monkeypatch.setenv("LLAMAMGR_CONTEXT", "512")
    assert identity() == other[0], "wherever the context was said"


# -- what can be wrong beforehand


def test_a_file_is_run_by_its_path(install_fake):
    install_fake()
    with LlamaServer(GOLDEN_MODELS / "tinychat.gguf") as server:
        assert server.chat("hello").text == ANSWER
    with LlamaServer(str(GOLDEN_MODELS / "tinychat.gguf")) as server:
        assert server.chat("hello").text == ANSWER


@pytest.mark.parametrize("model", ["nope", "/nowhere/x.gguf", "./y.gguf"])
def test_an_unknown_model_is_named_and_nothing_is_left(install_fake, model):
    install_fake()
    before = folders()
    with LlamaServer(model) as server:
        for _ in range(2):
            with pytest.raises(NotFoundError, match=r"not found|no file"):
                server.chat("hello")
    assert not folders() - before


def test_without_a_build_the_command_that_mends_it_is_told():
    with LlamaServer("selftest") as server, pytest.raises(MissingToolError, match="llamamgr install"):
        server.chat("hello")


def test_an_unknown_load_option_is_told_with_the_one_that_was_meant():
    with pytest.raises(UsageError, match="did you mean threads"):
        LlamaServer("selftest", thread=3)
    with pytest.raises(UsageError, match="whole numbers"):
        LlamaServer("selftest", context="many")
    with pytest.raises(UsageError, match="neither"):
        LlamaServer("selftest", transport="udp")  # type: ignore[arg-type]


def test_a_models_own_settings_hold_for_a_private_server_too(install_fake, own_home):
    install_fake()
    (own_home / "config").mkdir()
    (own_home / "config" / "config.toml").write_text(
        '[models.selftest]\nparallel = 7\nflags = { "keep" = 5 }\n'
    )
    with LlamaServer("selftest", parallel=2) as server:
        argv = psutil.Process(server.pid).cmdline()
    assert argv[argv.index("--keep") + 1] == "5"
    assert argv[argv.index("--parallel") + 1] == "2"


# -- closing


def test_closing_is_safe_before_the_start_twice_and_after(install_fake):
    install_fake()
    unused = LlamaServer("selftest")
    unused.close()
    unused.close()
    with pytest.raises(UsageError, match="closed"):
        unused.start()
    used = LlamaServer("selftest")
    pid = used.pid
    used.close()
    assert gone(pid)
    used.close()


@pytest.mark.parametrize("when", ["start", "load"])
def test_a_failed_start_tells_code_and_log_and_closing_after_it_returns_promptly(install_fake, when):
    install_fake(f"exit-at={when},exit-code=7")
    server = LlamaServer("selftest")
    with pytest.raises(EngineError, match="exited with code 7"):
        server.start()
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 3  # it hung for ever where this comes from
    assert children() == []


def test_a_load_past_its_deadline_is_ended(install_fake):
    install_fake("never-healthy")
    with LlamaServer("selftest", ready_timeout=0.3) as server:
        with pytest.raises(EngineError, match=r"not ready after 0\.3 s"):
            server.start()
        assert children() == []


def test_closing_from_another_thread_ends_what_waits_for_an_answer(install_fake):
    install_fake()
    server = LlamaServer("selftest")
    pid = server.pid
    stream = iter(server.stream(ENDLESS))
    next(stream)
    told: list[BaseException] = []

    def ask() -> None:
        try:
            server.chat(ENDLESS)
        except BaseException as error:
            told.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    closing = threading.Thread(target=server.close)
    closing.start()
    closing.join()
    asking.join()
    assert gone(pid)
    assert isinstance(told[0], EngineError | UsageError)
    with pytest.raises(UsageError, match="closed"):
        for _ in stream:
            pass


def test_closing_during_the_load_ends_it(install_fake):
    install_fake("never-healthy")
    server = LlamaServer("selftest")
    told: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except EngineError as error:
            told.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    until(lambda: bool(children()))
    began = time.monotonic()
    server.close()
    starting.join()
    assert time.monotonic() - began < 6
    assert "closed before" in str(told[0])
    assert children() == []


def test_a_server_that_nobody_holds_any_more_is_collected_with_its_child(install_fake):
    install_fake()
    before = folders()
    server = LlamaServer("selftest")
    pid = server.pid
    stream = iter(server.stream(ENDLESS))
    next(stream)
    del server
    gc.collect()
    assert not gone(pid)  # the stream still needs it
    del stream
    gc.collect()
    assert gone(pid)
    assert not folders() - before


# -- dying


def test_a_child_that_died_is_started_once_more_and_the_second_death_is_final(install_fake):
    install_fake()
    with LlamaServer("selftest") as server:
        first, url = server.pid, server.base_url
        os.kill(first, signal.SIGKILL)
        assert server.chat("hello").text == ANSWER
        second = server.pid
        assert (second != first, server.base_url != url) == (True, True)
        os.kill(second, signal.SIGKILL)
        with pytest.raises(EngineError, match="killed by SIGKILL"):
            server.chat("hello")
        for _ in range(2):
            with pytest.raises(EngineError, match="second chance"):
                server.chat("hello")
        assert children() == []


def test_a_start_that_failed_once_may_succeed_at_the_next_use(install_fake, tmp_path):
    install_fake(f"once={tmp_path / 'once'},exit-at=load")
    with LlamaServer("selftest") as server:
        with pytest.raises(EngineError, match="exited with code 1"):
            server.start()
        assert server.chat("hello").text == ANSWER


def test_a_start_that_always_fails_is_tried_twice(install_fake):
    install_fake("exit-at=load,exit-code=3")
    with LlamaServer("selftest") as server:
        for hint in ("last words", "last words", "second chance"):
            with pytest.raises(EngineError, match="exited with code 3") as caught:
                server.chat("hello")
            assert hint in caught.value.hint


def test_a_death_in_mid_answer_is_mended_for_chat_and_told_to_a_stream(install_fake, tmp_path):
    install_fake(f"once={tmp_path / 'once'},exit-at=mid-stream")
    with LlamaServer("selftest") as server:
        assert server.chat("hello").text == ANSWER
    (tmp_path / "once").unlink()
    got = []
    with (
        LlamaServer("selftest") as server,
        pytest.raises(EngineError, match="died while answering: llama-server exited with code 1"),
    ):
        for text in server.stream("hello"):
            got.append(text)
    assert got == ["Hello", " from"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("garbage-frame", EngineError),
        ("error-stream", EngineError),
        ("cut=2", EngineError),
        ("fail=400", UsageError),
    ],
)
def test_half_an_answer_is_never_a_whole_one(install_fake, fault, error):
    install_fake(fault)
    with LlamaServer("selftest") as server, pytest.raises(error):
        server.chat("hello")


# -- whose it is


def test_a_server_started_by_a_thread_that_ends_lives_on(install_fake):
    # Linux sends the parent-death signal when the thread that forked ends: it must not be the caller's
    install_fake()
    with LlamaServer("selftest") as server:
        starter = threading.Thread(target=server.start)
        starter.start()
        starter.join()
        pid = server.pid
        assert server.chat("hello").text == ANSWER
        assert server.pid == pid


def test_after_kill_9_of_its_owner_no_child_lives_and_the_next_owner_clears_its_folder(install_fake):
    install_fake()
    before = folders()
    script = (
        "import llamamgr, time, threading\n"
        "server = llamamgr.LlamaServer('selftest')\n"
        "starter = threading.Thread(target=server.start); starter.start(); starter.join()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = owner(script)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    until(lambda: gone(pid), 1.0)
    process.communicate()
    [left] = folders() - before
    os.utime(left, (0, 0))
    with LlamaServer("selftest") as server:
        server.start()
        assert not left.exists()


def test_at_the_interpreters_exit_everything_is_gone(install_fake):
    install_fake()
    before = folders()
    script = (
        "import llamamgr\n"
        "server = llamamgr.LlamaServer('selftest')\n"
        "stream = iter(server.stream('count forever')); next(stream)\n"
        "print(server.pid)\n"
    )
    process = owner(script)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert gone(int(out))
    assert not folders() - before


def test_a_forked_copy_owns_nothing(install_fake):
    install_fake()
    script = (
        "import llamamgr, os, sys, threading\n"
        "server = llamamgr.LlamaServer('selftest'); pid = server.pid\n"
        "busy, done = threading.Event(), threading.Event()\n"
        "def work():\n"
        "    with server._thread._lock: busy.set(); done.wait()\n"  # as if it were starting at that moment
        "threading.Thread(target=work).start(); busy.wait()\n"
        "if os.fork() == 0:\n"
        "    try: server.chat('hello')\n"
        "    except llamamgr.core.errors.UsageError as error: print(error.what, flush=True)\n"
        "    server.close(); sys.exit(0)\n"
        "os.wait(); done.set()\n"
        "print(server.pid == pid, server.chat('hello'))\n"
    )
    process = owner(script)
    try:
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert out.splitlines() == ["a LlamaServer does not survive a fork", f"True {ANSWER}"]


def test_a_program_that_runs_on_uvloop_can_have_one(install_fake):
    install_fake()
    script = (
        "import asyncio, uvloop, llamamgr\n"
        "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
        "async def main():\n"
        "    async with llamamgr.LlamaServer('selftest') as server:\n"
        "        print(await server.achat('hello'))\n"
        "asyncio.run(main())\n"
    )
    process = owner(script)
    out, err = process.communicate(timeout=20)
    assert (out.strip(), process.returncode) == (ANSWER, 0), err


def test_importing_llamamgr_is_free_and_a_server_needs_no_web_framework():
    script = (
        "import sys, llamamgr\n"
        "assert not {'asyncio', 'msgspec', 'psutil'} & sys.modules.keys()\n"
        "assert llamamgr.LlamaServer and llamamgr.Reply\n"
        "assert not {'aiohttp', 'httpx', 'rich', 'gguf', 'huggingface_hub', 'typer'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="nonsense"):
        llamamgr.nonsense  # noqa: B018


# -- the command


def run_private(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamamgr", "run", "--private", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_run_private_answers_without_a_daemon(install_fake, own_home):
    install_fake()
    done = run_private("selftest", "hello", "--verbose", "--no-think")
    assert (done.returncode, done.stdout) == (0, f"{ANSWER}\n")
    assert "answer 7 tokens" in done.stderr
    assert not (own_home / "run").exists()


def test_run_private_holds_a_session_on_a_terminal(install_fake, own_home):
    install_fake()
    terminal = pexpect.spawn(
        sys.executable, ["-m", "llamamgr", "run", "--private", "selftest", "--no-think"], timeout=20
    )
    terminal.expect(">>> ")
    for _ in range(2):
        terminal.sendline("hello")
        terminal.expect_exact(ANSWER)
        terminal.expect(">>> ")
    terminal.sendline("/bye")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert not (own_home / "run").exists()


def test_run_private_fails_with_the_engines_code(install_fake):
    install_fake("exit-at=load")
    done = run_private("selftest", "hello")
    assert (done.returncode, done.stdout) == (13, "")
    assert "exited with code 1" in done.stderr
    refused = run_private("selftest", "hello", "--keepalive", "5m")
    assert refused.returncode == 2


def test_run_private_ended_by_sigterm_leaves_nothing(install_fake):
    install_fake()
    before = folders()
    process = subprocess.Popen(
        [sys.executable, "-m", "llamamgr", "run", "--private", "selftest", ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(20)
    [child] = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert gone(child.pid)
    assert not folders() - before


WORKER = f"""
import threading, time
import llamamgr
from llamamgr.supervise import memory

memory._LOOK_SECONDS = 0.01  # what is done every few seconds is done at once

def work():
    with llamamgr.LlamaServer({str(GOLDEN_MODELS / "tinychat.gguf")!r}) as server:
        print(server.chat("hi").text, flush=True)
        threading.main_thread().join()
        for _ in range(20):
            time.sleep(0.02)
            print(server.chat("hi").text, flush=True)

threading.Thread(target=work).start()
"""


def test_on_a_thread_that_outlives_the_main_one_it_goes_on(install_fake):
    install_fake()
    done = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [ANSWER] * 21
    assert done.stderr == ""
