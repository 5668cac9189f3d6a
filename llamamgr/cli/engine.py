"""An engine for a command that runs one: where none is there, a person on a terminal is offered the ways to get one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamamgr.core.cards import Build
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Store


def ready_engine(paths: Paths, name: str = "", model: str = "") -> Build:
    """The build of the instance ``name``, else of the one that the settings of ``model`` name, else by the other rules.

    Where there is none at all a person is asked; off a terminal ``MissingToolError`` names the ways.
    """
    from llamamgr.core.errors import MissingToolError
    from llamamgr.host.settings import load_config
    from llamamgr.instances.store import Store

    config = load_config(paths)
    preferred = config.instance
    if model and not name and not os.environ.get("LLAMAMGR_INSTANCE"):
        name = config.settings_of(model).instance
    store = Store(paths)
    try:
        return _engine(store, paths, name, preferred)
    except MissingToolError:
        if name or store.instances()[0] or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        if not _make_one(paths):
            raise
    return _engine(store, paths, name, preferred)


def _engine(store: Store, paths: Paths, name: str, preferred: str) -> Build:
    from llamamgr.daemon.oracle import self_test
    from llamamgr.instances.ladder import engine

    return engine(
        store, paths, lambda: self_test(paths), name, preferred, lambda line: print(line, file=sys.stderr)
    )


def _make_one(paths: Paths) -> bool:
    """Offer the system's package, then a build; whether one was taken."""
    import typer

    from llamamgr.instances.ladder import offer

    print("No llama.cpp is installed.", file=sys.stderr)
    package = offer()
    if (
        package is not None
        and typer.confirm(f"Install this system's package ({package.text})?", err=True)
        and subprocess.run(package.command, check=False).returncode == 0
    ):
        return True
    if typer.confirm("Build it from source (some minutes)?", default=True, err=True):
        from llamamgr.cli.install import install

        install()
        return True
    return False
