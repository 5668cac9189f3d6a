"""``llamamgr uninstall``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def uninstall(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The instance.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """Remove an instance with all its builds. Refused while a model runs on it. Linked programs are left alone."""
    from llamamgr.cli.chosen import chosen_instance, is_busy
    from llamamgr.cli.output import human_size
    from llamamgr.core.errors import UsageError
    from llamamgr.host.paths import Paths
    from llamamgr.instances.pruning import uninstall as perform
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    store = Store(paths)
    instance = store.instance(name)
    if not force:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                f"removing instance {name!r} wants a yes, and there is no terminal to ask on", "say --force"
            )
        size = human_size(sum(build.card.size for build in instance.builds))
        count = len(instance.builds)
        if not typer.confirm(
            f"Remove instance {name} with {count} build{'s' if count != 1 else ''} ({size})?", err=True
        ):
            raise typer.Exit(1)
    freed = perform(store, name, is_busy(paths))
    print(f"{name} is removed, {human_size(freed)} freed")
    if chosen_instance(paths).name == name and (left := [i.spec.name for i in store.instances()[0]]):
        print(
            f"commands used it unless told otherwise; `llamamgr use {left[0]}` names another", file=sys.stderr
        )
