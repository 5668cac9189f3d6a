"""``llamamgr stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.host.paths import Paths


def stop(
    model: Annotated[
        str, typer.Argument(help="The model to unload; without one the daemon is stopped.")
    ] = "",
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the model's requests.")] = False,
) -> None:
    """Unload a model once its requests are done, or stop the daemon and all its children. Starts no daemon."""
    from llamamgr.daemon.client import Control
    from llamamgr.host.paths import Paths

    paths = Paths.of_environment()
    if model:
        answer = Control(paths).call("POST", "/control/stop-model", {"model": model, "now": now})
        done = "is unloaded" if now else "is unloaded as soon as its requests are done"
        print(f"{model} {done}" if answer["stopped"] else f"{model} was not loaded")
        return
    stop_daemon(paths)


def stop_daemon(paths: Paths) -> None:
    """End the daemon and wait until it and its children are gone."""
    from llamamgr.daemon.client import Control
    from llamamgr.daemon.spawn import wait_until_gone

    control = Control(paths)
    if control.ping() is None:
        print("no daemon is running")
        return
    control.call("POST", "/control/shutdown", {})
    wait_until_gone(paths)
    print("the daemon has stopped")
