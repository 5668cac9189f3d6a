"""The proxy that anybody would write with aiohttp: its server, its client, bytes passed on as they come.

``python -m tests.bench.bare_proxy SOCKET`` listens on a free port of loopback, prints its address and asks ``SOCKET``.
"""

from __future__ import annotations

import sys

import aiohttp
from aiohttp import web

_UPSTREAM: web.AppKey[aiohttp.ClientSession] = web.AppKey("upstream")
_STREAMED: web.AppKey[aiohttp.ClientSession] = web.AppKey("streamed")
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


async def passed(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    headers = {"Content-Type": request.headers.get("Content-Type", "")}
    # the upstream closes after a stream: a connection kept from it would be found dead by the next request
    upstream = request.app[_STREAMED if b'"stream":true' in body[-200:] else _UPSTREAM]
    async with upstream.request(request.method, request.path_qs, data=body, headers=headers) as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
        if answer.content_length is not None:
            return web.Response(status=answer.status, headers=kept, body=await answer.read())
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


async def serve(socket: str) -> web.Application:
    app = web.Application(client_max_size=100 << 20)
    app.router.add_route("*", "/{path:.*}", passed)

    async def upstream(app: web.Application):
        kept, fresh = (aiohttp.UnixConnector(socket, limit=0, force_close=once) for once in (False, True))
        async with (
            aiohttp.ClientSession("http://localhost", connector=kept) as app[_UPSTREAM],
            aiohttp.ClientSession("http://localhost", connector=fresh) as app[_STREAMED],
        ):
            yield

    app.cleanup_ctx.append(upstream)
    return app


async def main(socket: str) -> None:
    import asyncio

    runner = web.AppRunner(await serve(socket), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"bare proxy listens on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import logging

    import uvloop

    logging.basicConfig()

    uvloop.run(main(sys.argv[1]))
