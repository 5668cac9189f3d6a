"""``llamamgr uninstall``."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.instances.store import Store


def uninstall(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The instance.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """Remove an instance with all its builds. Refused while a model runs on it. Linked programs are left alone."""
    from llamamgr.cli.chosen import chosen_instance, is_busy
    from llamamgr.cli.output import human_size
    from llamamgr.core.errors import LlamamgrError, UsageError
    from llamamgr.host.paths import Paths
    from llamamgr.instances.pruning import uninstall as perform
    from llamamgr.instances.store import Store

    paths = Paths.of_environment()
    store = Store(paths)
    if not force:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                f"removing instance {name!r} wants a yes, and there is no terminal to ask on", "say --force"
            )
        if not typer.confirm(f"Remove instance {name}{_described(store, name)}?", err=True):
            raise typer.Exit(1)
    freed = perform(store, name, is_busy(paths))
    print(f"{name} is removed, {human_size(freed)} freed")
    with contextlib.suppress(LlamamgrError):  # a mistake in config.toml is no matter of this
        if chosen_instance(paths).name == name and (left := [i.spec.name for i in store.instances()[0]]):
            print(
                f"commands used it unless told otherwise; `llamamgr use {left[0]}` names another",
                file=sys.stderr,
            )


def _described(store: Store, name: str) -> str:
    from llamamgr.cli.output import human_size
    from llamamgr.core.errors import ConfigError

    try:
        builds = store.instance(name).builds
    except ConfigError as error:
        return f", which cannot be read ({error.what})"
    size = human_size(sum(build.card.size for build in builds))
    return f" with {len(builds)} build{'s' if len(builds) != 1 else ''} ({size})"
