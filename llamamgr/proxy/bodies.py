"""Bodies of requests."""

from __future__ import annotations

import math

from aiohttp import web


async def body_of(request: web.Request) -> bytes:
    """All of a body, once; ``HTTPRequestEntityTooLarge`` above the application's limit.

    ``Request.read`` would keep what it read, and aiohttp keeps the request for as long as its connection is idle: a picture of
    20 MB would stay until the client sends something else.
    """
    limit = request.client_max_size or math.inf
    content = request.content
    data = await content.readany()
    if content.is_eof() and len(data) <= limit:
        return data  # nearly all bodies: they came with their head
    pieces, size = [data], len(data)
    while data:
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(request.client_max_size, size)
        data = await content.readany()
        pieces.append(data)
        size += len(data)
    return b"".join(pieces)
