"""The daemon's life: config → objects → serve → orderly stop. The only place that knows all parts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

from aiohttp import web

import llamamgr
from llamamgr.core.cards import ModelCard
from llamamgr.core.config import Address, Config
from llamamgr.core.errors import ConflictError, LlamamgrError, PermissionDeniedError
from llamamgr.daemon.builds import CurrentBuilds
from llamamgr.daemon.client import Control
from llamamgr.daemon.config_watch import ConfigWatch
from llamamgr.daemon.keys import KeyFile, check_front
from llamamgr.daemon.lag import LoopLag
from llamamgr.daemon.quantizing import quantizer_of
from llamamgr.daemon.reload import Reloading
from llamamgr.daemon.residents import Residents
from llamamgr.daemon.spawn import daemon_lock
from llamamgr.daemon.tidying import keep_small, set_aside_what_is_loaded
from llamamgr.daemon.tls import Tls, tls_of
from llamamgr.host.descriptors import allow_descriptors
from llamamgr.host.files import discard, locked
from llamamgr.host.memory import give_back_what_is_freed
from llamamgr.host.paths import Paths, ensure
from llamamgr.host.ports import holder_of
from llamamgr.host.settings import load_config
from llamamgr.models.index import Index
from llamamgr.proxy.app import Services, build_app
from llamamgr.proxy.connections import FrontRunner
from llamamgr.proxy.control import build_control_app
from llamamgr.proxy.gate import access
from llamamgr.proxy.site import FrontSite
from llamamgr.proxy.visit import RequestLabel
from llamamgr.supervise.supervisor import Supervisor

log = logging.getLogger("llamamgr")

_HANDOVER_SECONDS = 30.0
_DRAIN_SECONDS = 10.0  # what requests in flight are given to finish when the daemon is told to stop
_CLOSE_SECONDS = 1.0  # for connections that have nothing in flight any more
_DESCRIPTORS_EACH = 2  # a client's connection, and that to an engine
_DESCRIPTORS_OWN = 128  # children's pipes, logs, the index, libraries


def run(paths: Paths, flags: Mapping[str, str], announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, or until told over the control socket.

    ``flags`` are settings given on the command line, by dotted key ("" = not given).
    ``ConflictError`` when another daemon of this home runs or the port is taken. ``announce`` is told the URL once it listens.
    """
    give_back_what_is_freed()
    set_aside_what_is_loaded()
    config = load_config(paths, flags)
    _log_to_stderr(config)
    keys = KeyFile(paths)
    check_front(config.server, keys.keyring.keys)
    tls = tls_of(config.server)
    ensure(paths.run, private=True)
    ensure(paths.state, private=True)
    ensure(paths.state / "engine-config")
    # one that answers is here to stay; one that does not is on its way out and frees the lock soon
    other = Control(paths).ping()
    if other:
        raise ConflictError(
            f"a daemon of this home already runs (pid {other['pid']}, {other['url']})",
            "`llamamgr stop` ends it; LLAMAMGR_HOME gives a second one a home of its own",
        )
    place = locked(daemon_lock(paths), "the daemon's place", wait=_HANDOVER_SECONDS)
    with place, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, paths, flags, keys, tls, announce))


def _log_to_stderr(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RequestLabel())
    form = "%(asctime)s %(levelname)s %(name)s: %(request)s%(message)s"
    logging.basicConfig(level=config.log_level.upper(), format=form, handlers=[handler])
    if config.server.access_log:
        access.setLevel(logging.INFO)  # it was asked for by name, whatever the level of the rest


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


async def _serve(
    config: Config,
    paths: Paths,
    flags: Mapping[str, str],
    keys: KeyFile,
    tls: Tls | None,
    announce: Callable[[str], None],
) -> None:
    stop = asyncio.Event()
    index = Index(paths, config)
    builds = CurrentBuilds(paths, config.instance)
    supervisor = Supervisor(
        config,
        builds,
        run=paths.run,
        state=paths.state,
        children_file=paths.children_file,
        card_of=lambda name: _card_of(index, name),
    )
    async with supervisor:
        lag = LoopLag()
        residents = Residents(supervisor, index, config)
        services = Services(
            children=supervisor,
            index=index,
            config=config,
            version=llamamgr.__version__,
            started=time.time(),
            stop=stop.set,
            reload=lambda: reloading(),
            lag=lag.percentile,
            quantize=quantizer_of(builds, paths.data / "locks"),
            keyring=keys.keyring,
            reload_keys=keys.reread,
            tally=supervisor.tally,
            flags={key: value for key, value in flags.items() if value},
        )
        supervisor.on_stopping = services.pool.forget
        reloading = Reloading(paths, flags, services, supervisor, index, builds, residents, keys, tls)
        async with (
            _front(services, config.server.address, tls) as address,
            _control(services, paths.control_socket),
            asyncio.TaskGroup() as tasks,
        ):
            with _signals(stop, lambda: tasks.create_task(reloading.quietly())):
                log.info("llamamgr %s listens on %s (pid %d)", llamamgr.__version__, address.url, os.getpid())
                services.url = address.url
                announce(address.url)
                await asyncio.to_thread(index.refresh)
                watch = ConfigWatch(
                    paths.config_file, lambda: services.config.watch_config, reloading.quietly
                )
                work = [residents.run(), lag.run(), watch.run(), keys.watch(), keep_small()]
                if tls is not None:
                    work.append(tls.watch())
                companions = [tasks.create_task(one) for one in work]
                await stop.wait()
                for companion in companions:
                    companion.cancel()
                services.stopping = True
                log.info("stopping: requests have %g s to end", _DRAIN_SECONDS)
                await supervisor.drain(_DRAIN_SECONDS)


def _card_of(index: Index, name: str) -> ModelCard | None:
    try:
        return index.resolve(name)
    except LlamamgrError:
        return None


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


@contextlib.asynccontextmanager
async def _front(services: Services, address: Address, tls: Tls | None) -> AsyncIterator[Address]:
    wanted = _DESCRIPTORS_EACH * services.config.server.max_connections + _DESCRIPTORS_OWN
    most = (allow_descriptors(wanted) - _DESCRIPTORS_OWN) // _DESCRIPTORS_EACH
    runner = FrontRunner(
        build_app(services),
        lambda: services.config.server,
        services.metrics,
        max(1, most),
        shutdown_timeout=_CLOSE_SECONDS,
    )
    await runner.setup()
    try:
        try:
            context = tls.context if tls is not None else None
            wait = services.config.server.head_wait
            await FrontSite(runner, address.host, address.port, context, handshake_wait=wait).start()
        except OSError as error:
            raise _bind_error(address, error) from None
        port = runner.addresses[0][1]
        yield Address(address.host, port, address.tls)
    finally:
        await runner.cleanup()


def _bind_error(address: Address, error: OSError) -> Exception:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(address.port)
        by = f" by {holder}" if holder else ""
        return ConflictError(
            f"{address.host}:{address.port} is in use{by}",
            "stop that program, or choose another address: `llamamgr serve --host 127.0.0.1:11435` or LLAMAMGR_HOST",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(
            f"this user may not listen on {address.host}:{address.port}", "choose a port above 1023"
        )
    return ConflictError(
        f"cannot listen on {address.host}:{address.port}: {error.strerror}",
        "check server.host in config.toml",
    )


@contextlib.asynccontextmanager
async def _control(services: Services, path: Path) -> AsyncIterator[None]:
    discard(path)  # ours: the lock is held
    runner = web.AppRunner(
        build_control_app(services),
        handle_signals=False,
        access_log=None,
        shutdown_timeout=_CLOSE_SECONDS,
        handler_cancellation=True,
    )
    await runner.setup()
    try:
        former = os.umask(0o177)
        try:
            await web.UnixSite(runner, str(path), backlog=128).start()
        finally:
            os.umask(former)
        yield
    finally:
        discard(path)
        await runner.cleanup()
