"""How an answer that comes piece by piece is brought to its end, the same for every dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from llamamgr.proxy import replies
from llamamgr.proxy.relay import Want, with_lease
from llamamgr.proxy.replies import Told
from llamamgr.proxy.services import services_of
from llamamgr.proxy.writer import Writer
from llamamgr.supervise.lease import Lease


async def deliver(
    request: web.Request,
    want: Want,
    writer: Writer,
    attempt: Callable[[Lease], Awaitable[None]],
    *,
    whole: Callable[[], web.Response] | None,
    last_words: Callable[[Told], bytes],
    is_spent: Callable[[], bool] = lambda: False,
    is_fresh: Callable[[], bool] = lambda: False,
) -> web.StreamResponse:
    """Run ``attempt`` under a lease, which may write; it is run once more when its child got lost before anything was written.

    Also while what was written ``is_fresh``: nothing of an answer. Not when it ``is_spent``: what it sends can be sent once only,
    and has been. The answer is ``whole()``, or where that is None what was written. A failure before the first byte is raised, one
    after it ends the stream with ``last_words`` and a cut connection.
    """
    try:
        children = services_of(request).children
        await with_lease(children, want, attempt, lambda: is_spent() or (writer.sent and not is_fresh()))
    except Exception as error:
        if not writer.sent or isinstance(error, ConnectionError):
            raise
        return await writer.break_off(last_words(replies.tell(request, error)))
    return whole() if whole is not None else await writer.finish()
