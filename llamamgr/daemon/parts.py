"""The daemon's parts, and how they are put together: the only place that knows all of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine

import msgspec

import llamamgr
from llamamgr.daemon.builds import CurrentBuilds
from llamamgr.daemon.config_watch import ConfigWatch
from llamamgr.daemon.lag import LoopLag
from llamamgr.daemon.quantizing import quantizer_of
from llamamgr.daemon.reload import Reloading
from llamamgr.daemon.residents import Residents
from llamamgr.daemon.start import Start
from llamamgr.daemon.tidying import keep_log_short, keep_small
from llamamgr.models.index import Index
from llamamgr.proxy.services import Services
from llamamgr.supervise.lasting import lasting
from llamamgr.supervise.supervisor import Supervisor


class Parts(msgspec.Struct, frozen=True):
    """What lives as long as the daemon, put together and not yet started."""

    start: Start
    index: Index
    supervisor: Supervisor
    residents: Residents
    lag: LoopLag
    services: Services
    reloading: Reloading

    def companions(self) -> list[Coroutine[object, object, None]]:
        """What goes on beside the requests until it is cancelled."""
        start = self.start
        watch = ConfigWatch(
            start.paths.config_file, lambda: self.services.config.watch_config, self.reloading.quietly
        )
        work: dict[str, Callable[[], Awaitable[object]]] = {
            "keeping models loaded": self.residents.run,
            "looking at the loop's lateness": self.lag.run,
            "watching the configuration": watch.run,
            "watching the API keys": start.keys.watch,
            "giving memory back": keep_small,
            "keeping the log short": lambda: keep_log_short(start.paths.daemon_log),
            "looking for settings that cannot work": self.reloading.advise,
        }
        if start.tls is not None:
            work["watching the certificate"] = start.tls.watch
        return [lasting(what, task) for what, task in work.items()]


def assemble(start: Start, stop: Callable[[], None]) -> Parts:
    """Make the parts of a daemon; ``stop`` is called when somebody asks over the control socket for its end."""
    paths, config = start.paths, start.config
    index, builds, lag = Index(paths, config), CurrentBuilds(paths, config.instance), LoopLag()
    supervisor = Supervisor(
        config,
        builds,
        run=paths.run,
        state=paths.state,
        children_file=paths.children_file,
        card_of=index.find,
    )
    residents = Residents(supervisor, index, config)
    services = Services(
        children=supervisor,
        index=index,
        config=config,
        version=llamamgr.__version__,
        started=time.time(),
        stop=stop,
        reload=lambda: reloading(),
        lag=lag.percentile,
        quantize=quantizer_of(builds, paths.data / "locks"),
        keyring=start.keys.keyring,
        reload_keys=start.keys.reread,
        tally=supervisor.tally,
        flags={key: value for key, value in start.flags.items() if value},
    )
    supervisor.on_stopping = services.pool.forget
    reloading = Reloading(start, services, supervisor, builds, residents)
    return Parts(start, index, supervisor, residents, lag, services, reloading)
