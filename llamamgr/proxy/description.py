"""``/openapi.json``: what this server can be asked, for programs. Made at the first request for it, and kept."""

from __future__ import annotations

import asyncio
import functools

from aiohttp import web

from llamamgr.proxy import replies
from llamamgr.proxy.services import services_of


async def describe(request: web.Request) -> web.Response:
    # tens of milliseconds the first time
    return replies.v1(await asyncio.to_thread(_description, services_of(request).version))


@functools.lru_cache(maxsize=1)
def _description(version: str) -> bytes:
    import msgspec

    from llamamgr.proxy.operations import OPERATIONS, SCHEMAS
    from llamamgr.wire.openapi import document

    return msgspec.json.encode(document(OPERATIONS, SCHEMAS, version))
