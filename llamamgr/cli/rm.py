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
    failures: list[LlamamgrError] = []
    for model in models:
        try:
            card = index.require_itself(model, index.resolve(model))
            making.delete(index.store, card)
        except LlamamgrError as error:
            if len(models) == 1:
                raise
            typer.echo(f"error: {error}", err=True)
            failures.append(error)
            continue
        _unload(paths, card)
        typer.echo(f"{card.name} is removed")
        index.refresh()
    if failures:
        raise typer.Exit(failures[0].exit_code)


def _unload(paths: Paths, card: ModelCard) -> None:
    """What runs by the name of a model that is gone goes, too, though another model may share its files."""
    from llamamgr.core.errors import LlamamgrError
    from llamamgr.daemon.client import Control, tell_of_models

    control = Control(paths)
    try:
        children = control.call("GET", "/control/ps", timeout=2.0)["children"]
        if any(child["model"]["name"] == card.name for child in children):
            control.call("POST", "/control/stop-model", {"model": card.name, "now": False}, timeout=5.0)
    except LlamamgrError:
        return  # no daemon, or one that has no time for this: its keep-alive ends it
    tell_of_models(paths)
