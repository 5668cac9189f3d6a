"""Where the front listens."""

from __future__ import annotations

import asyncio
import ssl

from aiohttp import web

_BACKLOG = 1024
_FAREWELL = 5.0  # seconds that a TLS connection may take to close in order


class FrontSite(web.TCPSite):
    """A TCP address, with TLS where ``tls`` is given; a handshake has ``handshake_wait`` seconds (aiohttp gives it a minute)."""

    __slots__ = ("_handshake_wait",)

    def __init__(
        self,
        runner: web.BaseRunner,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        *,
        handshake_wait: float,
    ) -> None:
        super().__init__(runner, host, port, ssl_context=tls, backlog=_BACKLOG)
        self._handshake_wait = handshake_wait

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        is_tls = self._ssl_context is not None
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=self._handshake_wait if is_tls else None,
            ssl_shutdown_timeout=_FAREWELL if is_tls else None,
        )
