"""Where an engine comes from, rung by rung: an instance; a ``llama-server`` on PATH; the system's package manager; a build.

The first two need nobody's consent and are taken here. The others change the machine: they are only named, and whoever talks to a
person asks.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llamamgr.core.cards import Build
from llamamgr.core.errors import LlamamgrError, MissingToolError
from llamamgr.host.compilers import find_tool, package_manager
from llamamgr.host.paths import Paths
from llamamgr.host.processes import capture
from llamamgr.instances.store import Store

if TYPE_CHECKING:
    from llamamgr.instances.verify import SelfTest

_SERVER = "llama-server"
_ASK = 30.0  # seconds


class Offer(msgspec.Struct, frozen=True):
    """A package of the system that brings a llama-server, and the command that installs it."""

    manager: str
    command: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.command)


# How a package manager says whether it has a package, and how it installs one; the names that llama.cpp has there.
_MANAGERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "brew": (("brew", "info"), ("brew", "install"), ("llama.cpp",)),
    "apt": (("apt-cache", "show"), ("sudo", "apt", "install"), ("llama.cpp",)),
    "dnf": (("dnf", "--quiet", "--cacheonly", "info"), ("sudo", "dnf", "install"), ("llama-cpp",)),
    "pacman": (("pacman", "-Si"), ("sudo", "pacman", "-S"), ("llama.cpp", "llama-cpp")),
    "zypper": (
        ("zypper", "--non-interactive", "--no-refresh", "search", "--match-exact"),
        ("sudo", "zypper", "install"),
        ("llamacpp", "llama-cpp"),
    ),
}


def engine(
    store: Store,
    paths: Paths,
    test: Callable[[], SelfTest],
    name: str = "",
    preferred: str = "default",
    say: Callable[[str], None] = lambda line: None,
) -> Build:
    """The build to run: that of ``name``, else of ``preferred`` or the only instance, else a llama-server on PATH.

    ``test`` makes the self-test, asked for only when a linked or borrowed build may have to be tested. ``say`` gets a line when
    nothing is installed and something else's llama-server is used. Raises as ``Store.choose``; ``MissingToolError`` names the other
    ways.
    """
    try:
        build = store.choose(name, preferred)
    except MissingToolError as error:
        found = "" if name else server_of_path(store)
        if not found:
            raise _ways(error) if not name else error from None
        from llamamgr.instances.link import borrowed  # brings what builds; the daemon rarely needs it

        build = borrowed(Path(found), paths, test())
        say(f"no instance is installed: using {found} (b{build.card.number})")
        return build
    if build.card.source.kind != "linked":
        return build
    from llamamgr.instances.link import refreshed

    return refreshed(build, store, paths, test())


def server_of_path(store: Store) -> str:
    """The ``llama-server`` that is used since no instance is installed; "" where one is, or PATH has none."""
    return "" if store.instances()[0] else find_tool(_SERVER) or ""


def offer() -> Offer | None:
    """The package that the system's package manager has, if it has one."""
    manager = package_manager()
    if manager not in _MANAGERS:
        return None
    ask, install, names = _MANAGERS[manager]
    found = next((name for name in names if _has(ask, name)), "")
    return Offer(manager, (*install, found)) if found else None


def _has(ask: tuple[str, ...], name: str) -> bool:
    try:
        return capture([*ask, name], timeout=_ASK).succeeded
    except (LlamamgrError, OSError):
        return False


def _ways(error: MissingToolError) -> MissingToolError:
    ways = [error.hint or "run `llamamgr install`"]
    if (package := offer()) is not None:
        ways.append(f"{package.text} (the package of this system)")
    return MissingToolError(error.what, "\n      ".join(ways))
