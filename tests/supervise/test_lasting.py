"""Work beside the requests goes on, and off the loop, whatever happens."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llamamgr.supervise import lasting as lasting_module
from llamamgr.supervise.lasting import lasting
from llamamgr.supervise.measured import Measured
from tests.supervise.conftest import model
from tests.supervise.test_supervisor import until


async def test_what_fails_is_said_and_done_again_and_its_own_end_is_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lasting_module, "_PAUSE", 0.0)
    faults: list[Exception | None] = [OSError(24, "Too many open files"), KeyError("x"), None]

    async def work() -> None:
        if (fault := faults.pop(0)) is not None:
            raise fault

    await lasting("the work", work)
    assert faults == []
    assert [record.message for record in caplog.records] == ["the work failed; it goes on in 0 s"] * 2


async def test_a_disk_that_fails_while_figures_are_saved_ends_no_supervisor(
    supervisor, fake_build, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []

    def save(self: Measured) -> None:
        saves.append(1)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Measured, "save", save)
    monkeypatch.setattr(lasting_module, "_PAUSE", 0.0)
    monkeypatch.setattr("llamamgr.supervise.memory._LOOK_SECONDS", 0.01)
    async with supervisor(fake_build()) as owner:
        await until(lambda: len(saves) > 2, 5)
        async with owner.acquire(model()):
            assert [child.state for child in owner.status()] == ["ready"]


AFTER_THE_END = """
import asyncio, threading
from llamamgr.supervise.threads import in_thread

ended = threading.Event()

def work():
    threading.main_thread().join()  # by then CPython has shut its executors down
    assert asyncio.run(in_thread(divmod, 7, 2)) == (3, 1)
    try:
        asyncio.run(in_thread(divmod, 7, 0))
    except ZeroDivisionError:
        print("done")

threading.Thread(target=work).start()
"""


def test_work_finds_a_thread_in_a_program_whose_main_thread_has_ended() -> None:
    done = subprocess.run([sys.executable, "-c", AFTER_THE_END], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")
