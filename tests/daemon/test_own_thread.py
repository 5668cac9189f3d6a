"""``OwnThread``: whatever was asked of it has an end, however it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from llamamgr.core.errors import EngineError, UsageError
from llamamgr.daemon.own_thread import OwnThread

ROUNDS = 200


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns so often that every order of two of them comes up within a few hundred rounds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@asynccontextmanager
async def slow_to_leave() -> AsyncIterator[None]:
    yield
    for _ in range(3):
        await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.Event().wait()


def told_after_closing_meanwhile() -> BaseException | None:
    own = OwnThread(slow_to_leave, "test")
    own.call(asyncio.sleep(0))
    both = threading.Barrier(2)
    told: list[BaseException] = []

    def ask() -> None:
        both.wait()
        try:
            own.submit(for_ever()).result(10)
        except BaseException as error:
            told.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    both.wait()
    own.close()
    asking.join()
    return told[0]


def test_what_a_timeout_of_its_own_is_cancelling_at_the_moment_of_closing_is_ended_too() -> None:
    own = OwnThread(slow_to_leave, "test")
    is_cancelling = threading.Event()

    async def cancelled_by_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # what ``asyncio.timeout`` does, which takes it back a step later
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        is_cancelling.set()
        await for_ever()

    asked = own.submit(cancelled_by_itself())
    is_cancelling.wait()
    own.close()
    with pytest.raises(EngineError, match="closed before"):
        asked.result(10)


def test_what_its_asker_gave_up_is_cancelled_once_and_may_clean_up() -> None:
    own = OwnThread(slow_to_leave, "test")
    began, cleaning = threading.Event(), threading.Event()
    cleaned: list[str] = []

    async def with_a_cleanup() -> None:
        try:
            began.set()
            await for_ever()
        finally:
            cleaning.set()
            await own._leave.wait()
            await asyncio.sleep(0.01)  # by then the closing has cancelled what it wants to cancel
            cleaned.append("all")

    asked = own.submit(with_a_cleanup())
    began.wait()
    asked.cancel()
    cleaning.wait()
    own.close()
    assert cleaned == ["all"]


@pytest.mark.usefixtures("quick_switches")
def test_what_is_asked_at_the_moment_of_closing_is_refused_or_ended_with_an_error() -> None:
    told = [told_after_closing_meanwhile() for _ in range(ROUNDS)]
    strange = [error for error in told if not isinstance(error, EngineError | UsageError)]
    assert strange == []
