"""Blocking work off the loop, also in a program whose main thread has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_SHUT = ("cannot schedule new futures", "can't register atexit")


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """As ``asyncio.to_thread``, which fails once the main thread has ended.

    CPython shuts its executors down before it waits for threads that are no daemons, and a private server may be on one of those.
    """
    try:
        return await asyncio.to_thread(work, *arguments)
    except RuntimeError as error:
        if not str(error).startswith(_SHUT):
            raise
    return await _in_its_own(work, arguments)


async def _in_its_own(work: Callable[..., T], arguments: tuple[object, ...]) -> T:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if told.done():  # whoever waited has given up
            return
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(result)  # type: ignore[arg-type]  # what work gave

    def run() -> None:
        result, error = None, None
        try:
            result = work(*arguments)
        except BaseException as raised:
            error = raised
        loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await told
