"""The file of API keys and a running daemon: read at the start, whenever somebody says so, and when it was changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from llamamgr.core.config import ServerConfig
from llamamgr.core.errors import ConfigError, LlamamgrError
from llamamgr.core.keys import Key
from llamamgr.host.keys_file import fingerprint, load_keys
from llamamgr.host.paths import Paths
from llamamgr.proxy.keyring import Keyring

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0  # the command line says at once that it changed the file; people with editors do not


class KeyFile:
    """Keeps ``keyring`` as the file says. A file that is wrong changes nothing: nobody gets in by breaking it."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._seen = fingerprint(paths)
        self.keyring = Keyring(load_keys(paths))

    async def reread(self) -> int:
        """Read the file; how many keys there are. ``ConfigError`` names what is wrong in it."""
        self._seen = await asyncio.to_thread(fingerprint, self._paths)
        self.keyring.replace(await asyncio.to_thread(load_keys, self._paths))
        log.info("API keys read: there are %d", len(self.keyring))
        return len(self.keyring)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                if await asyncio.to_thread(fingerprint, self._paths) != self._seen:
                    await self.reread()
            except (LlamamgrError, OSError) as error:
                log.error("the API keys stay as they were: %s", error)  # noqa: TRY400 - a person's typo


def check_front(server: ServerConfig, keys: Iterable[Key]) -> None:
    """``ConfigError`` when the front would take requests from the network and there is no key to ask for."""
    if server.is_open_to_network and not server.needs_key:
        log.warning("whoever reaches %s needs no API key: allow_network_without_key is set", server.host)
        return
    now = time.time()
    if not server.needs_key or not all(key.has_expired(now) for key in keys):
        return
    if server.is_open_to_network:
        raise ConfigError(
            f"{server.host} can be reached from other machines, and there is no API key to ask them for",
            "`llamamgr key create NAME` makes one; or listen on 127.0.0.1",
        )
    log.warning("require_key is set and there is no API key: only the command line is answered")
