"""``llamamgr rollback``."""

from __future__ import annotations

from typing import Annotated

import typer


def rollback(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="The instance. [the one that commands use]")
    ] = "",
    build: Annotated[
        str,
        typer.Argument(metavar="[BUILD]", help="Its id, number or commit. [the one that was current before]"),
    ] = "",
) -> None:
    """Let an instance run the build that was current before, or another one that is still there.

    Loaded models keep their build until they are started the next time.
    """
    from llamamgr.cli.chosen import chosen_instance
    from llamamgr.host.paths import Paths
    from llamamgr.instances import switching
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    chosen = name or chosen_instance(paths).name
    card = switching.rollback(Store(paths), chosen, build).card
    print(f"{chosen}: llama.cpp b{card.number} ({card.commit}) is current now")
    print(f"`llamamgr pin {chosen}` keeps `update` from leaving it again")
