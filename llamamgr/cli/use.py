"""``llamamgr use``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer


def use(name: Annotated[str, typer.Argument(metavar="NAME", help="An instance that is installed.")]) -> None:
    """Let models run on this instance unless something else is said: sets `instance` in config.toml."""
    from llamamgr.daemon.client import Control
    from llamamgr.host.config_file import set_instance
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    card = Store(paths).current(name).card
    set_instance(paths, name)
    print(f"models run on {name} from now on: llama.cpp b{card.number} ({card.commit}) for {card.arch}")
    other = os.environ.get("LLAMAMGR_INSTANCE", "")
    if other and other != name:
        print(f"note: LLAMAMGR_INSTANCE is set to {other!r} here, and wins", file=sys.stderr)
    if Control(paths).ping() is not None:
        print("note: `llamamgr daemon reload` tells the running daemon", file=sys.stderr)
