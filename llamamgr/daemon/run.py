"""The daemon's life: config → objects → serve → orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping

import llamamgr
from llamamgr.core.errors import ConflictError
from llamamgr.daemon.client import Control
from llamamgr.daemon.listening import control, front
from llamamgr.daemon.parts import assemble
from llamamgr.daemon.spawn import daemon_lock
from llamamgr.daemon.start import Start, read_start
from llamamgr.daemon.tidying import set_aside_what_is_loaded
from llamamgr.host.files import locked
from llamamgr.host.memory import give_back_what_is_freed
from llamamgr.host.paths import Paths, ensure

log = logging.getLogger("llamamgr")

_HANDOVER_SECONDS = 30.0
_DRAIN_SECONDS = 10.0  # what requests in flight are given to finish when the daemon is told to stop


def run(paths: Paths, flags: Mapping[str, str], announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, or until told over the control socket.

    ``flags`` are settings given on the command line, by dotted key ("" = not given).
    ``ConflictError`` when another daemon of this home runs or the port is taken. ``announce`` is told the URL once it listens.
    """
    give_back_what_is_freed()
    set_aside_what_is_loaded()
    start = read_start(paths, flags)
    ensure(paths.run, private=True)
    ensure(paths.state, private=True)
    ensure(paths.state / "engine-config")
    _make_sure_of_being_the_only_one(paths)
    place = locked(daemon_lock(paths), "the daemon's place", wait=_HANDOVER_SECONDS)
    with place, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(start, announce))


def _make_sure_of_being_the_only_one(paths: Paths) -> None:
    # one that answers is here to stay; one that does not is on its way out and frees the lock soon
    other = Control(paths).ping()
    if other:
        raise ConflictError(
            f"a daemon of this home already runs (pid {other['pid']}, {other['url']})",
            "`llamamgr stop` ends it; LLAMAMGR_HOME gives a second one a home of its own",
        )


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


async def _serve(start: Start, announce: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    parts = assemble(start, stop.set)
    async with (
        parts.supervisor,
        front(parts.services, start.config.server.address, start.tls) as address,
        control(parts.services, start.paths.control_socket),
        asyncio.TaskGroup() as tasks,
    ):
        with _signals(stop, lambda: tasks.create_task(parts.reloading.quietly())):
            log.info("llamamgr %s listens on %s (pid %d)", llamamgr.__version__, address.url, os.getpid())
            parts.services.url = address.url
            announce(address.url)
            await asyncio.to_thread(parts.index.refresh)
            companions = [tasks.create_task(work) for work in parts.companions()]
            await stop.wait()
            for companion in companions:
                companion.cancel()
            parts.services.stopping = True
            log.info("stopping: requests have %g s to end", _DRAIN_SECONDS)
            await parts.supervisor.drain(_DRAIN_SECONDS)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, reload: Callable[[], object]) -> Iterator[None]:
    """SIGTERM and SIGINT stop in order, SIGHUP reads the configuration anew."""
    loop = asyncio.get_running_loop()
    reactions: dict[int, Callable[[], object]] = {
        signal.SIGTERM: stop.set,
        signal.SIGINT: stop.set,
        signal.SIGHUP: reload,
    }
    for number, reaction in reactions.items():
        loop.add_signal_handler(number, reaction)
    try:
        yield
    finally:
        for number in reactions:
            loop.remove_signal_handler(number)
