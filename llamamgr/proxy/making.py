"""Models being made: what takes a disk or a processor for minutes, on threads of its own, so that nothing else waits behind it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from llamamgr.core.errors import BusyError
from llamamgr.models.progress import Progress, Tell

_AT_ONCE = 4
_WAITING = 32


class Makers:
    """Runs so many at once; some more may wait for a thread."""

    def __init__(self, at_once: int = _AT_ONCE, waiting: int = _WAITING) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(at_once, "making")
        self._at_once = at_once
        self._most = at_once + waiting
        self._works: set[concurrent.futures.Future[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """At the end of this block what waits is dropped; what runs ends when it next tells something."""
        try:
            yield
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def make(self, work: Callable[[Tell], object]) -> AsyncGenerator[Progress, None]:
        """What blocking ``work`` tells, as it tells it; its error is raised at the end. Once nobody listens, telling fails.

        ``BusyError`` when too many wait already.
        """
        if len(self._works) >= self._most:
            raise BusyError(f"{len(self._works)} models are being made already", "try again later", 60)
        loop = asyncio.get_running_loop()
        told: asyncio.Queue[Progress | None] = asyncio.Queue()
        failed: list[Exception] = []
        is_heard = True

        def tell(progress: Progress) -> None:
            if not is_heard:
                raise ConnectionError("the client left")
            loop.call_soon_threadsafe(told.put_nowait, progress)

        def run() -> None:
            try:
                work(tell)
            except Exception as error:
                failed.append(error)
            finally:
                if is_heard:
                    loop.call_soon_threadsafe(told.put_nowait, None)

        waits = len(self._works) >= self._at_once
        future = self._threads.submit(run)
        self._works.add(future)
        future.add_done_callback(self._works.discard)
        try:
            if waits:
                yield Progress("waiting for other models to be made")
            while (progress := await told.get()) is not None:
                yield progress
        finally:
            is_heard = False
            future.cancel()
        if failed:
            raise failed[0]
