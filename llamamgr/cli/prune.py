"""``llamamgr prune``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def prune(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this instance. [all]")] = "",
    keep: Annotated[
        int, typer.Option("--keep", min=0, help="How many of the newest verified builds stay.")
    ] = 2,
) -> None:
    """Remove builds that nobody needs, and without a NAME the sources that nothing was built from and the logs of installs that
    came to nothing. The current build, the one before it and any that runs always stay.
    """
    from llamamgr.cli.chosen import is_busy
    from llamamgr.cli.output import human_size
    from llamamgr.core.errors import ConflictError
    from llamamgr.host.paths import Paths
    from llamamgr.instances.pruning import prune as perform
    from llamamgr.instances.pruning import prune_embryos, prune_sources
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    store = Store(paths)
    found, warnings = store.instances()
    names = (name,) if name else tuple(instance.spec.name for instance in found)
    busy = is_busy(paths)
    total = 0
    for one in names:
        try:
            pruned = perform(store, one, keep, busy)
        except ConflictError as error:
            if name:
                raise
            print(f"{one} stays as it is: {error.what}", file=sys.stderr)
            continue
        total += pruned.freed
        for build in pruned.removed:
            print(f"{one}: {build} is removed")
        for build in pruned.running:
            print(f"{one}: {build} stays, it is running")
    if not name:
        for one in prune_embryos(store):
            print(f"{one}: what an install left that came to nothing is removed")
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if warnings:
            print("the sources stay: what cannot be read may come from them", file=sys.stderr)
        for source in prune_sources(store, paths):
            print(f"the source {source.name} is removed")
            total += source.freed
    print(f"{human_size(total)} freed")
