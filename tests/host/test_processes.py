"""Processes end when they should, take their group along, and see a clean environment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llamamgr.core.errors import DeadlineError, MissingToolError
from llamamgr.host.processes import (
    capture,
    die_with_parent,
    end_group,
    scrubbed_environment,
    spawned,
    stream,
    terminate_as_interrupt,
    wait_until,
)

ROOT = Path(__file__).parents[2]
SLEEPER = "import time; time.sleep(60)"
PARENT_OF_A_SLEEPER = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid, flush=True)"
)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_an_engine_would_take_for_options_is_not_passed_on(monkeypatch):
    for name in (
        "LLAMA_ARG_CTX_SIZE",
        "LLAMA_SERVER_ROUTER_PORT",
        "LLAMA_API_KEY",
        "AIP_MODE",
        "LLAMA_CACHE",
    ):
        monkeypatch.setenv(name, "set")
    environment = scrubbed_environment({"CUDA_VISIBLE_DEVICES": "0"})
    assert not {"LLAMA_ARG_CTX_SIZE", "LLAMA_SERVER_ROUTER_PORT", "LLAMA_API_KEY", "AIP_MODE"} & set(
        environment
    )
    assert environment["LLAMA_CACHE"] == "set" and environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert environment["PATH"] == os.environ["PATH"]


def test_a_command_is_captured_with_both_outputs_and_its_status():
    outcome = capture(
        [sys.executable, "-c", "import sys; print('out'); sys.stderr.write('err'); sys.exit(3)"], timeout=30
    )
    assert outcome.code == 3 and not outcome.succeeded
    assert "out" in outcome.output and "err" in outcome.output


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(MissingToolError, match="no-such-program"):
        capture(["no-such-program"], timeout=1)


def test_a_command_that_does_not_end_in_time_is_ended_with_its_children():
    began = time.monotonic()
    code = PARENT_OF_A_SLEEPER + "; import time; time.sleep(60)"
    with pytest.raises(DeadlineError), spawned([sys.executable, "-c", code]) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            raise DeadlineError("late") from None
    assert wait_until(lambda: is_gone(grandchild), timeout=5)
    assert process.returncode == -signal.SIGTERM and time.monotonic() - began < 30
    with pytest.raises(DeadlineError, match="did not end within"):
        capture([sys.executable, "-c", SLEEPER], timeout=0.2)


def test_lines_are_handed_on_as_they_come():
    lines: list[str] = []
    assert (
        stream([sys.executable, "-c", "print('one'); print('two'); raise SystemExit(4)"], lines.append) == 4
    )
    assert lines == ["one", "two"]


def test_a_failing_reader_of_lines_ends_the_command():
    seen: list[int] = []

    def refuse(line: str) -> None:
        seen.append(int(line))
        raise ValueError(line)

    with pytest.raises(ValueError, match=r"\d+"):
        stream(
            [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"], refuse
        )
    assert is_gone(seen[0])


def test_who_ignores_sigterm_is_killed_after_the_grace():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    with spawned([sys.executable, "-c", code]) as process:
        assert process.stdout is not None and process.stdout.readline() == b"deaf\n"
        end_group(process, grace=0.1)
        assert process.returncode == -signal.SIGKILL


def test_ending_what_has_ended_sends_nothing():
    with spawned([sys.executable, "-c", ""]) as process:
        process.wait(30)
        end_group(process)
        end_group(process)
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do this")
def test_a_child_dies_with_a_parent_that_is_killed():
    code = (
        "import subprocess, sys\nfrom llamamgr.host.processes import die_with_parent\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], preexec_fn=die_with_parent())\n"
        "print(child.pid, flush=True)\nchild.wait()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_gone(child)
        parent.kill()
    assert wait_until(lambda: is_gone(child), timeout=5)


@pytest.mark.skipif(sys.platform == "linux", reason="Linux can do this")
def test_elsewhere_there_is_nothing_to_arm():
    assert die_with_parent() is None


def test_a_polite_kill_unwinds_like_an_interrupt():
    unwound = False
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            unwound = True
    assert unwound and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
