"""The front's certificate while the daemon runs: renewed by a reload, and complained about before it ends."""

from __future__ import annotations

import asyncio
import logging
import time

from llamamgr.core.config import ServerConfig
from llamamgr.host.tls import Certificate, examine, load_into, new_context

log = logging.getLogger(__name__)

_LOOK_SECONDS = 12 * 3600.0


class Tls:
    """``context`` is what connections are made with, for as long as the daemon lives; ``ConfigError`` as ``host.tls.examine``."""

    def __init__(self, server: ServerConfig) -> None:
        self.context = new_context()
        self.certificate = examine(server.tls_cert, server.tls_key, time.time())
        self.take(server, self.certificate)

    def take(self, server: ServerConfig, examined: Certificate) -> None:
        """Show the certificate of ``server``, which was examined, from now on; connections that there are keep theirs."""
        load_into(self.context, server.tls_cert, server.tls_key)
        self.certificate = examined
        self._complain()

    async def watch(self) -> None:
        """Until cancelled: say twice a day that the end is near."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._complain()

    def _complain(self) -> None:
        warning = self.certificate.warning(time.time())
        if warning:
            log.warning("%s; renew it, then `llamamgr daemon reload`", warning)


def tls_of(server: ServerConfig) -> Tls | None:
    """None where the front speaks plain HTTP."""
    return Tls(server) if server.tls_cert else None
