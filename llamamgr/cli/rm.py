"""``llamamgr rm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.core.cards import ModelCard
    from llamamgr.host.paths import Paths


def remove(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="Models of the own store.")],
) -> None:
    """Remove models that were pulled or created, and what only they needed. Files that lie elsewhere are never touched."""
    from llamamgr.core.errors import LlamamgrError
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config
    from llamamgr.models import create as making
    from llamamgr.models.index import Index

    paths = Paths.of_environment()
    index = Index(paths, load_config(paths))
    failed: LlamamgrError | None = None
    for model in models:
        try:
            card = index.resolve(model)
            if (
                card.source == "store"
                and [one.digest for one in index.listing().models].count(card.digest) == 1
            ):
                _unload(paths, card)
            making.delete(index.store, card)
        except LlamamgrError as error:
            if len(models) > 1:
                typer.echo(f"error: {error}", err=True)
            failed = failed or error
            continue
        typer.echo(f"{card.name} is removed")
        index.refresh()
    if failed:
        raise failed


def _unload(paths: Paths, card: ModelCard) -> None:
    """The engine of a model that is gone need not stay; without a daemon there is none."""
    from llamamgr.core.errors import LlamamgrError
    from llamamgr.daemon.client import Control

    control = Control(paths)
    try:
        children = control.call("GET", "/control/ps", timeout=2.0)["children"]
        if any(child["model"]["digest"] == card.digest for child in children):
            control.call("POST", "/control/stop-model", {"model": card.name, "now": False}, timeout=5.0)
    except LlamamgrError:
        return  # no daemon, or one that has no time for this: its keep-alive ends it
