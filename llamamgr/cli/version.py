"""``llamamgr version``."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the versions of llamamgr, of the running daemon if there is one, and of the build in use."""
    from llamamgr import __version__
    from llamamgr.daemon.client import Control
    from llamamgr.host.paths import Paths

    paths = Paths.of_environment()
    daemon = Control(paths).ping()
    build = _build()
    if as_json:
        print(
            json.dumps({"llamamgr": __version__, "daemon": (daemon or {}).get("version"), "llama.cpp": build})
        )
        return
    print(f"llamamgr {__version__}")
    print(f"daemon {daemon['version']} (pid {daemon['pid']})" if daemon else "daemon not running")
    print(f"llama.cpp {build}" if build else "llama.cpp not installed (run `llamamgr install`)")


def _build() -> str | None:
    from llamamgr.core.errors import LlamamgrError
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    try:
        card = Store(paths).choose("", load_config(paths).instance).card
    except LlamamgrError:
        return None
    return f"b{card.number} ({card.commit}), instance {card.instance}, {card.arch}"
