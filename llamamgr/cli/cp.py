"""``llamamgr cp``."""

from __future__ import annotations

from typing import Annotated

import typer


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A model of `llamamgr list`.")],
    destination: Annotated[str, typer.Argument(metavar="NAME", help="Its second name.")],
) -> None:
    """Give a model a second name. Its weights are not copied."""
    from llamamgr.core.names import ModelName
    from llamamgr.daemon.client import tell_of_models
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config
    from llamamgr.models import create as making
    from llamamgr.models.index import Index

    name = ModelName.parse(destination)
    paths = Paths.of_environment()
    index = Index(paths, load_config(paths))
    card = index.resolve(source)
    making.copy(index.store, card, name)
    tell_of_models(paths)
    typer.echo(f"{card.name} is also called {name.short}")
