"""An async context manager, held open by an event loop on a thread of its own, for programs that have no loop to spare.

The thread lives exactly as long as the context is open, which matters more than it looks: Linux sends a child's parent-death
signal when the *thread* that forked it ends. A child forked on a caller's short-lived worker thread would be
killed with that thread; one forked here lives until ``close``, or until the whole process dies.

The loop is of the program's own policy, because in CPython 3.11 it is the policy that knows how to wait for child processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from llamamgr.core.errors import EngineError, UsageError
from llamamgr.supervise.threads import in_thread

T = TypeVar("T")


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: object) -> None:
    """``EngineError`` when the loop has ended by a fault of its own."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        raise EngineError("the LlamaServer has ended", "make a new one") from None


class OwnThread:
    """Opens at the first ``call``, ``acall`` or ``submit``; every method may be used from any thread.

    ``inside`` makes the context manager; it must not refer to whoever owns this object, so that the owner can be collected.
    """

    def __init__(
        self, inside: Callable[[], contextlib.AbstractAsyncContextManager[object]], name: str
    ) -> None:
        self._inside = inside
        self._name = name
        self._process = os.getpid()
        # reentrant: what the garbage collector finalises on a thread that holds it may ask for it again
        self._lock = threading.RLock()
        self._closed = False
        self._entered: Future[asyncio.AbstractEventLoop] | None = None
        self._thread: threading.Thread | None = None
        self._leave = asyncio.Event()  # bound to the loop at its first use there
        self._asked: dict[asyncio.Task[Any], Future[Any]] = {}
        self._cut_short: set[asyncio.Task[Any]] = set()

    @property
    def is_open(self) -> bool:
        """The context is entered, and not left yet."""
        entered = self._entered
        return entered is not None and entered.done() and not self._closed

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``coroutine`` on the loop. ``UsageError`` after ``close`` and in a forked process; errors of opening pass."""
        future: Future[T] = Future()
        try:
            self._refuse_in_fork()  # where the lock may be held for ever by a thread that is not there
            with self._lock:  # asked before the loop is told to leave, or refused
                _tell(self._open(), self._begin, coroutine, future)
        except BaseException:
            coroutine.close()
            raise
        return future

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """As ``submit``, and wait for the result; an interrupt of the waiting cancels the coroutine."""
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def acall(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """As ``call``, for a program that has a loop of its own; cancelling it cancels the coroutine."""
        if not self.is_open:
            try:
                await in_thread(self._open)
            except BaseException:
                coroutine.close()
                raise
        return await asyncio.wrap_future(self.submit(coroutine))

    def close(self) -> None:
        """Cancel what runs, leave the context, end the thread. Safe at any time, from anywhere, as often as one likes."""
        if os.getpid() != self._process:
            return  # a forked copy owns nothing
        with self._lock:
            self._closed = True
            entered, thread = self._entered, self._thread
        if entered is None or thread is None or entered.exception() is not None:
            return
        with contextlib.suppress(RuntimeError):  # it is closed already
            entered.result().call_soon_threadsafe(self._leave.set)
        if thread is not threading.current_thread():  # the garbage collector may run on it
            thread.join()

    def _refuse_in_fork(self) -> None:
        if os.getpid() != self._process:
            raise UsageError("a LlamaServer does not survive a fork", "make one in the process that uses it")

    def _open(self) -> asyncio.AbstractEventLoop:
        self._refuse_in_fork()
        with self._lock:
            if self._closed:
                raise UsageError("this LlamaServer is closed", "make a new one")
            if self._entered is None:
                self._entered = Future()
                self._thread = threading.Thread(
                    target=self._run, args=(self._entered,), name=self._name, daemon=True
                )
                self._thread.start()
            try:
                return self._entered.result()
            except Exception:
                self._entered = None  # the next caller tries anew
                raise

    def _run(self, entered: Future[asyncio.AbstractEventLoop]) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._live(entered))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)
        finally:
            # lets idle workers go without waiting: asyncio.Runner starts a thread for that, which Python 3.12 refuses at its exit
            loop.close()

    async def _live(self, entered: Future[asyncio.AbstractEventLoop]) -> None:
        async with self._inside():
            entered.set_result(asyncio.get_running_loop())
            await self._leave.wait()
            # those that their askers have given up clean up already, and a second cancellation would stop them at it
            self._cut_short = {task for task, future in self._asked.items() if not future.cancelled()}
            for task in self._cut_short:
                task.cancel()
            if self._asked:
                await asyncio.wait(self._asked)

    def _begin(self, coroutine: Coroutine[Any, Any, T], future: Future[T]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(coroutine)
        self._asked[task] = future
        task.add_done_callback(self._ended)

        def given_up(future: Future[T]) -> None:
            if future.cancelled():
                with contextlib.suppress(RuntimeError):  # the loop is closed, and the task has ended with it
                    loop.call_soon_threadsafe(task.cancel)

        future.add_done_callback(given_up)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        future = self._asked.pop(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() and task in self._cut_short:
            # told as an error: a cancellation would look like the caller's own
            error = EngineError(
                "the LlamaServer was closed before the answer was complete", "close it after its last use"
            )
        elif task.cancelled():
            future.cancel()
        if not future.set_running_or_notify_cancel():
            return
        if error is None:
            future.set_result(task.result())
        else:
            future.set_exception(error)
