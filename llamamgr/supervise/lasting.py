"""Work that goes on beside the requests: whatever happens to it, it ends neither them nor the daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_PAUSE = 5.0  # seconds, so that a fault that stays fills no log


async def lasting(what: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do ``work``, and do it again a little later when it fails; its own end is the end of this, too.

    A disk that went away, a file that may not be read, no descriptor left: an ``OSError`` can come from anywhere, and in a
    ``TaskGroup`` it would cut all that the others do.
    """
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s failed; it goes on in %g s", what, _PAUSE)
            await asyncio.sleep(_PAUSE)
        else:
            return
