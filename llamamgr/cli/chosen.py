"""Which instance a command means, and what of it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamamgr.core.cards import Build
    from llamamgr.host.paths import Paths
    from llamamgr.instances.choice import Choice


def chosen_instance(paths: Paths, flag: str = "", model: str = "") -> Choice:
    """The instance by rule: ``flag``, environment, what ``config.toml`` says of ``model`` and then of all models, default;
    where that has no build, the only one that has, as for commands that run something.
    """
    from llamamgr.host.settings import instance_settings, load_config
    from llamamgr.instances.choice import chosen
    from llamamgr.instances.store import Store

    environment, configured = instance_settings(paths)
    own = load_config(paths).settings_of(model).instance if model else ""
    choice = chosen(flag, environment, own, configured)
    return choice if choice.firm else choice.or_only(Store(paths).stand_in(choice.name))


def running_children(paths: Paths) -> list[dict[str, Any]]:
    """What the daemon runs; nothing when there is no daemon."""
    from llamamgr.core.errors import DaemonUnreachableError
    from llamamgr.daemon.client import Control

    try:
        return list(Control(paths).call("GET", "/control/ps", timeout=5)["children"])
    except DaemonUnreachableError:
        return []


def is_busy(paths: Paths) -> Callable[[Build], bool]:
    """Whether the daemon runs a child of a build."""
    keys = {child["build"] for child in running_children(paths)}
    return lambda build: build.key in keys
