"""``llamamgr version``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Store


def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the versions of llamamgr, of the running daemon if there is one, and of the build in use."""
    from llamamgr import __version__
    from llamamgr.daemon.client import Control
    from llamamgr.host.paths import Paths

    paths = Paths.of_environment()
    daemon = Control(paths).ping()
    build, problem = _build(paths)
    if as_json:
        told = {"llamamgr": __version__, "daemon": (daemon or {}).get("version"), "llama.cpp": build or None}
        print(json.dumps(told | ({"problem": problem} if problem else {})))
        return
    print(f"llamamgr {__version__}")
    print(f"daemon {daemon['version']} (pid {daemon['pid']})" if daemon else "daemon not running")
    print(f"llama.cpp {build or problem}")


def _build(paths: Paths) -> tuple[str, str]:
    """The build that commands use, or why none can be told."""
    from llamamgr.core.errors import LlamamgrError, MissingToolError
    from llamamgr.host.settings import load_config
    from llamamgr.instances.store import Store

    store = Store(paths)
    try:
        card = store.choose("", load_config(paths).instance).card
    except MissingToolError as error:
        is_there = bool(store.instances()[0])
        return _of_path(store, paths), str(error) if is_there else "not installed (run `llamamgr install`)"
    except LlamamgrError as error:
        return "", f"not known: {error}"
    return f"b{card.number} ({card.commit}), instance {card.instance}, {card.arch}", ""


def _of_path(store: Store, paths: Paths) -> str:
    """The llama-server of PATH that is used since nothing is installed; it is not run for this."""
    from llamamgr.instances.ladder import server_of_path

    server = server_of_path(store)
    if not server:
        return ""
    from llamamgr.instances.link import known

    build = known(Path(server), paths)
    number = f"b{build.card.number} ({build.card.commit})" if build else "not tested yet"
    return f"{number}, {server} of PATH: no instance is installed"
