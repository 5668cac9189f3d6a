"""``llamamgr daemon``."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer


class Action(enum.StrEnum):
    start = "start"
    stop = "stop"
    restart = "restart"
    status = "status"
    reload = "reload"


def daemon(action: Annotated[Action, typer.Argument(help="What to do.")]) -> None:
    """Start, stop or restart the daemon in the background, ask for its status, or have it read config.toml anew."""
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
            former = control.ping()  # address and certificate may have been given on a command line
            stopping.stop_daemon(paths)
            ensure_daemon(paths, former["flags"] if former else {})
            _print_status(control.call("GET", "/control/ping"))
        case Action.status:
            _print_status(control.call("GET", "/control/ping", timeout=5))
        case Action.reload:
            _print_reloaded(control.call("POST", "/control/reload", {}))


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
