"""cmake and ninja: those on PATH when they are new enough, else their wheels here, else wheels fetched into the store."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llamamgr.core.errors import MissingToolError
from llamamgr.core.recipe import version_numbers
from llamamgr.host.compilers import Tool, examine, examine_in, wheel_tool
from llamamgr.host.files import locked
from llamamgr.host.package_index import install_wheels
from llamamgr.host.paths import Paths

# Oldest versions that llama.cpp's CMake files and our use of Ninja take.
LEAST = {"cmake": (3, 18), "ninja": (1, 10)}


class BuildTools(msgspec.Struct, frozen=True):
    """Absolute paths of the two programs."""

    cmake: str
    ninja: str


def local_tool(name: str, paths: Paths, least: tuple[int, ...] = ()) -> Tool | None:
    """``cmake`` or ``ninja`` from PATH, from its wheel in this environment, or fetched earlier; None when none is new enough.

    Some arches need a newer one than all do: ``least``.
    """
    wanted = max(LEAST[name], least)
    found = examine(name)
    if found is not None and found.is_at_least(*wanted):
        return found
    return wheel_tool(name, wanted) or _fetched(name, paths)


def build_tools(
    paths: Paths, say: Callable[[str], None], log: Callable[[str], None], *, cmake_least: str = ""
) -> BuildTools:
    """Both programs, fetched where they are missing or, as CMake, older than the arch needs.

    ``MissingToolError`` or ``SourceUnreachableError`` when that fails.
    """
    wanted = {"cmake": version_numbers(cmake_least)}
    absent = tuple(name for name in LEAST if local_tool(name, paths, wanted.get(name, ())) is None)
    if absent:
        say(f"{' and '.join(absent)} not on PATH: taking the wheels")
        with locked(paths.data / "locks" / "tools.lock", "the folder of build tools", wait=600.0):
            for name in absent:
                if _fetched(name, paths) is None:
                    install_wheels((name,), paths.data / "tools" / name, log)
    found = {name: local_tool(name, paths, wanted.get(name, ())) for name in LEAST}
    programs = {name: tool.path for name, tool in found.items() if tool is not None}
    if len(programs) < len(LEAST):
        gone = ", ".join(name for name in LEAST if name not in programs)
        raise MissingToolError(
            f"the wheels of {gone} do not run here", f"install {gone} with the system's package manager"
        )
    return BuildTools(**programs)


def _fetched(name: str, paths: Paths) -> Tool | None:
    root = paths.data / "tools" / name
    return examine_in(name, (str(root / name / "data" / "bin"), str(root / "bin")))
