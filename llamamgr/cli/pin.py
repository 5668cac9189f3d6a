"""``llamamgr pin`` and ``llamamgr unpin``."""

from __future__ import annotations

from typing import Annotated

import typer

_NAME = Annotated[str, typer.Argument(metavar="[NAME]", help="The instance. [the one that commands use]")]


def pin(name: _NAME = "") -> None:
    """Keep an instance at its current build: `update` passes it over."""
    _set(name, True, "stays at its build: `update` passes it over", "is pinned already")


def unpin(name: _NAME = "") -> None:
    """Let `update` update an instance again."""
    _set(name, False, "may be updated again: `update` no longer passes it over", "was not pinned")


def _set(name: str, pinned: bool, done: str, same: str) -> None:
    from llamamgr.cli.chosen import chosen_instance
    from llamamgr.host.paths import Paths
    from llamamgr.instances.store import Store
    from llamamgr.instances.switching import set_pinned

    paths = Paths.of_environment()
    chosen = name or chosen_instance(paths).name
    print(f"{chosen} {done if set_pinned(Store(paths), chosen, pinned) else same}")
