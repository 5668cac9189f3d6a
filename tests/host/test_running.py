"""What processes say of themselves, also in the midst of an exec."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from llamamgr.host import running
from llamamgr.host.running import environment_of, is_alive, wait_until_ended, words_of


class InExec:
    """Stands in for a process in the midst of an exec, which no test can hold there: at first it says nothing."""

    def __init__(self, silent: int, status: str = psutil.STATUS_RUNNING) -> None:
        self.silent, self._status = silent, status

    def cmdline(self) -> list[str]:
        self.silent -= 1
        return [] if self.silent >= 0 else ["sleep", "600"]

    def environ(self) -> dict[str, str]:
        return {"HOME": "/"} if self.cmdline() else {}

    def status(self) -> str:
        return self._status


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    words = [sys.executable, "-c", "input()"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, env={"MINE": "1"}) as process:
        yield psutil.Process(process.pid)
        process.kill()


def test_a_process_tells_its_words_and_its_environment(sleeper: psutil.Process):
    assert words_of(sleeper) == [sys.executable, "-c", "input()"]
    assert environment_of(sleeper)["MINE"] == "1"


def test_a_process_in_the_midst_of_an_exec_is_asked_until_it_has_something_to_tell():
    assert words_of(InExec(silent=5)) == ["sleep", "600"]
    assert environment_of(InExec(silent=5)) == {"HOME": "/"}


def test_a_zombie_has_nothing_to_tell_and_is_asked_once():
    zombie = InExec(silent=1000, status=psutil.STATUS_ZOMBIE)
    assert environment_of(zombie) == {}
    assert zombie.silent == 999


def test_one_that_never_tells_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(running, "_EXEC_WAIT", 0.01)
    assert words_of(InExec(silent=10**9)) == []


@pytest.fixture
def zombie() -> Iterator[psutil.Process]:
    """It has ended, and nobody has reaped it."""
    with subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        yield psutil.Process(process.pid)


def test_a_zombie_has_ended(zombie: psutil.Process):
    wait_until_ended([zombie], 10)
    assert zombie.status() == psutil.STATUS_ZOMBIE  # it was not waited for in vain, nor reaped
    assert not is_alive(zombie.pid)


def test_one_that_goes_on_is_waited_for_as_long_as_was_said(sleeper: psutil.Process):
    wait_until_ended([sleeper], 0.01)
    assert is_alive(sleeper.pid)


LEADER_FIRST = """
import ctypes, threading
print("", flush=True)
threading.Thread(target=input).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process ends whole")
def test_a_zombie_whose_threads_go_on_has_not_ended():
    with subprocess.Popen(
        [sys.executable, "-c", LEADER_FIRST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while (seen := psutil.Process(process.pid)).status() != psutil.STATUS_ZOMBIE:
            assert seen.is_running()
        wait_until_ended([seen], 0.05)
        assert is_alive(seen.pid)
        process.kill()
        wait_until_ended([seen], 10)
        assert not is_alive(seen.pid)
