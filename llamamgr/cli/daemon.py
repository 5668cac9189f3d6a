"""``llamamgr daemon``."""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llamamgr.core.config import Config
    from llamamgr.daemon.client import Control
    from llamamgr.host.paths import Paths


_RELOAD_SECONDS = 300.0  # new folders of models are looked through before it is answered


class Action(enum.StrEnum):
    start = "start"
    stop = "stop"
    restart = "restart"
    status = "status"
    reload = "reload"
    check = "check"


def daemon(action: Annotated[Action, typer.Argument(help="What to do.")]) -> None:
    """Start, stop or restart the daemon in the background, ask for its status, or have it read config.toml anew.

    `check` tells whether a daemon could start as things are: configuration, keys, certificate, address. `restart` does so before it
    stops the one that runs.
    """
    from llamamgr.cli import stop as stopping
    from llamamgr.daemon.client import Control
    from llamamgr.daemon.spawn import ensure_daemon
    from llamamgr.host.paths import Paths

    paths = Paths.of_environment()
    control = Control(paths)
    match action:
        case Action.start:
            ensure_daemon(paths)
            _print_status(control.call("GET", "/control/ping"))
        case Action.stop:
            stopping.stop_daemon(paths)
        case Action.restart:
            flags = _checked(paths, control)[1]
            stopping.stop_daemon(paths)
            ensure_daemon(paths, flags)
            _print_status(control.call("GET", "/control/ping"))
        case Action.status:
            _print_status(control.call("GET", "/control/ping", timeout=5))
        case Action.reload:
            _print_reloaded(control.call("POST", "/control/reload", {}, timeout=_RELOAD_SECONDS))
        case Action.check:
            _print_checked(paths, _checked(paths, control)[0])


def _checked(paths: Paths, control: Control) -> tuple[Config, dict[str, str]]:
    """The configuration of the daemon that would start now, and what the one that runs was told on its command line."""
    from llamamgr.daemon.start import check_start

    former = control.ping() or {"flags": {}, "pid": 0}
    return check_start(paths, former["flags"], former["pid"]), former["flags"]


def _print_status(ping: dict[str, Any]) -> None:
    import time

    from llamamgr.core.durations import format_duration

    age = format_duration(time.time() - ping["started"])
    print(f"llamamgr {ping['version']} runs on {ping['url']} as pid {ping['pid']}, for {age}")


def _print_reloaded(reloaded: dict[str, Any]) -> None:
    drained, restart = reloaded["drained"], reloaded["needs_restart"]
    print(f"the configuration is in force; {', '.join(drained) or 'no loaded model'} is affected")
    if restart:
        print(f"a restart is needed for: {', '.join(restart)}")
    for told in reloaded["advice"]:
        _warn(f"{told['key']}: {told['what']}", told["hint"])


def _print_checked(paths: Paths, config: Config) -> None:
    from llamamgr.daemon.advice import advice
    from llamamgr.models.index import Index

    print(f"a daemon can start, and would listen on {config.server.address.url}")
    for told in advice(config, paths, Index(paths, config)):
        _warn(str(told), told.hint)


def _warn(what: str, hint: str) -> None:
    print(f"warning: {what}\nhint: {hint}", file=sys.stderr)
