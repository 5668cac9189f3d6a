"""A new configuration in a running daemon: all of it or nothing, and only what it concerns is disturbed."""

from __future__ import annotations

import asyncio
import logging
import operator
import time

from llamamgr.core.advice import Advice
from llamamgr.core.config import Config, ServerConfig
from llamamgr.core.errors import LlamamgrError
from llamamgr.daemon.advice import advice
from llamamgr.daemon.builds import CurrentBuilds
from llamamgr.daemon.keys import check_front
from llamamgr.daemon.residents import Residents
from llamamgr.daemon.start import Start
from llamamgr.host.settings import load_config
from llamamgr.host.tls import examine
from llamamgr.proxy.services import Reloaded, Services
from llamamgr.supervise.supervisor import Supervisor

log = logging.getLogger(__name__)

_AT_START_ONLY = ("server.host", "server.body_limit", "log_level")


class Reloading:
    """Call it to read ``config.toml`` and the API keys anew; ``ConfigError`` names file, line or key, and then the configuration
    has not changed.
    """

    def __init__(
        self,
        start: Start,
        services: Services,
        supervisor: Supervisor,
        builds: CurrentBuilds,
        residents: Residents,
    ) -> None:
        self._start = start
        self._services = services
        self._supervisor = supervisor
        self._builds = builds
        self._residents = residents

    async def __call__(self) -> Reloaded:
        start = self._start
        new = await asyncio.to_thread(load_config, start.paths, start.flags)
        await start.keys.reread()
        check_front(new.server, start.keys.keyring.keys)
        await self._renew_certificate(new.server)
        former, self._services.config = self._services.config, new
        self._services.index.reconfigure(new)
        self._builds.preferred = new.instance
        self._residents.config = new
        drained = self._supervisor.reconfigure(new)
        changed, restart = tuple(sorted(set(drained))), _needing_restart(former, new)
        log.info(
            "configuration read anew: %s is affected, a restart is needed for %s",
            ", ".join(changed) or "no loaded model",
            ", ".join(restart) or "nothing",
        )
        return Reloaded(changed, restart, await self.advise())

    async def advise(self) -> tuple[Advice, ...]:
        """Look for settings in force that will not do what they are there for, and log them."""
        config = self._services.config
        try:
            told = await asyncio.to_thread(advice, config, self._start.paths, self._services.index)
        except OSError as error:
            log.warning("nobody can tell whether all settings can work: %s", error)
            return ()
        for each in told:
            log.warning("%s (%s)", each, each.hint)
        return told

    async def _renew_certificate(self, server: ServerConfig) -> None:
        """The files may have changed where their names have not."""
        if server.tls_cert:
            examined = await asyncio.to_thread(examine, server.tls_cert, server.tls_key, time.time())
            if self._start.tls is not None:
                self._start.tls.take(server, examined)

    async def quietly(self) -> None:
        """For a signal, which has nobody to answer: a mistake goes to the log."""
        try:
            await self()
        except (LlamamgrError, OSError) as error:
            log.error("the new configuration is refused, nothing has changed: %s", error)  # noqa: TRY400 - a person's typo


def _needing_restart(former: Config, new: Config) -> tuple[str, ...]:
    changed = [key for key in _AT_START_ONLY if _value(former, key) != _value(new, key)]
    if bool(former.server.tls_cert) != bool(new.server.tls_cert):
        changed.append("server.tls_cert")
    return tuple(changed)


def _value(config: Config, key: str) -> object:
    return operator.attrgetter(key)(config)
