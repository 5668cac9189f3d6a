"""Pulls under way: whoever asks for the same model joins the pull that runs; it ends when the last of them has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from llamamgr.core.errors import BusyError
from llamamgr.models.progress import Progress
from llamamgr.models.pull import Puller, Wish


class Transfers:
    """Owns the tasks of all pulls while it is open."""

    def __init__(self) -> None:
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[Wish, _Transfer] = {}
        self._puller: Puller | None = None

    @property
    def underway(self) -> tuple[str, ...]:
        """The models that are being pulled."""
        return tuple(wish.name for wish in self._running)

    @asynccontextmanager
    async def open(self, puller: Puller) -> AsyncIterator[None]:
        """Pulls may be asked for in this block; at its end none is left."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks, self._puller = tasks, puller
            try:
                yield
            finally:
                self._tasks = None
                for transfer in list(self._running.values()):
                    transfer.cancel()

    async def pull(self, wish: Wish) -> AsyncGenerator[Progress, None]:
        """How the pull goes, from its first line on; its error is raised at the end. Close it to leave."""
        transfer = self._running.get(wish) or self._start(wish)
        transfer.listeners += 1
        try:
            async for progress in transfer.progress():
                yield progress
        finally:
            transfer.listeners -= 1
            if not transfer.listeners:
                self._forget(transfer, wish)
                transfer.cancel()

    def _start(self, wish: Wish) -> _Transfer:
        if self._tasks is None or self._puller is None:
            raise BusyError("llamamgr is shutting down", "send the request again once it runs", 5)
        transfer = _Transfer(self._puller, wish)
        self._running[wish] = transfer
        transfer.task = self._tasks.create_task(self._run(transfer, wish), name=f"pull {wish.name}")
        return transfer

    async def _run(self, transfer: _Transfer, wish: Wish) -> None:
        """To its end, which those who listen may still have to read; who asks from then on begins anew."""
        try:
            await transfer.run()
        finally:
            self._forget(transfer, wish)

    def _forget(self, transfer: _Transfer, wish: Wish) -> None:
        if self._running.get(wish) is transfer:
            del self._running[wish]


class _Transfer:
    """One pull: the steps so far, the latest state of each, and who listens."""

    def __init__(self, puller: Puller, wish: Wish) -> None:
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None
        self._puller = puller
        self._wish = wish
        self._steps: list[Progress] = []
        self._error: Exception | None = None
        self._is_over = False
        self._changed = asyncio.Event()

    async def run(self) -> None:
        try:
            await self._puller.pull(self._wish, self._tell)
        except Exception as error:
            self._error = error
        finally:
            self._is_over = True
            self._changed.set()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    async def progress(self) -> AsyncGenerator[Progress, None]:
        at, last = 0, None
        while True:
            changed = self._changed
            while at < len(self._steps):
                if (step := self._steps[at]) != last:
                    yield step
                    last = step
                if at == len(self._steps) - 1:
                    break
                at += 1
            if self._is_over and at >= len(self._steps) - 1 and (not self._steps or last == self._steps[-1]):
                break
            if changed is self._changed:
                await changed.wait()
        if self._error is not None:
            raise self._error

    def _tell(self, progress: Progress) -> None:
        """A step's newer state takes the place of the one before, so that a long pull stays small in memory."""
        if self._steps and progress.digest and self._steps[-1].status == progress.status:
            self._steps[-1] = progress
        else:
            self._steps.append(progress)
        before, self._changed = self._changed, asyncio.Event()
        before.set()
