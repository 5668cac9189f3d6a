"""The arch recipes in force, and which is this machine's best.

A recipe of the user's (``<config>/arch/*.toml``) replaces a shipped one of the same name. Shipped ones lie in the wheel as
``llamamgr/recipes/arch`` and in a checkout as ``recipes/arch`` beside the package.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec

from llamamgr.core.errors import BuildFailedError, ConfigError, NotFoundError
from llamamgr.core.recipe import Recipe, parse_recipe
from llamamgr.host.compilers import exists, find_tool
from llamamgr.host.files import read_toml
from llamamgr.host.paths import Paths
from llamamgr.host.processes import capture

_PACKAGE = Path(__file__).resolve().parent.parent
_COMMAND = re.compile(r"\$\(([^()]*)\)")


class Machine(msgspec.Struct, frozen=True):
    """What detection asks: the system's name, ``find(tool, extra folders)``, and whether a glob matches any file."""

    system: str
    find: Callable[[str, tuple[str, ...]], str]
    matches: Callable[[str], bool]


def this_machine() -> Machine:
    return Machine(platform.system(), find_tool, exists)


def recipes(paths: Paths) -> dict[str, Recipe]:
    """All recipes by name, best first; ``ConfigError`` for one that cannot be read."""
    found: dict[str, Recipe] = {}
    for folder in (_shipped(), paths.config / "arch"):
        for path in sorted(folder.glob("*.toml")):
            recipe = parse_recipe(read_toml(path), str(path))
            found[recipe.name] = recipe
    return dict(sorted(found.items(), key=lambda item: -item[1].priority))


def recipe_for(paths: Paths, arch: str, machine: Machine | None = None) -> Recipe:
    """The recipe ``arch``; for ``auto`` the detected one of highest priority. ``NotFoundError`` names those there are."""
    known = recipes(paths)
    if arch == "auto":
        seen = machine or this_machine()
        return next(recipe for recipe in known.values() if is_detected(recipe, seen))
    if arch not in known:
        raise NotFoundError(f"there is no arch {arch!r}", f"choose auto or one of: {', '.join(known)}")
    return known[arch]


def is_detected(recipe: Recipe, machine: Machine) -> bool:
    detect = recipe.detect
    return (
        (not detect.systems or machine.system in detect.systems)
        and all(machine.find(tool, detect.paths) for tool in detect.tools)
        and (not detect.devices or any(machine.matches(pattern) for pattern in detect.devices))
    )


def build_environment(recipe: Recipe) -> dict[str, str]:
    """``build_env`` with each ``$(command)`` replaced by the first line of its output, and the recipe's folders at PATH's end."""
    said = {
        key: _COMMAND.sub(lambda match: _first_line(match[1], recipe), value)
        for key, value in recipe.build_env.items()
    }
    folders = [folder for folder in recipe.detect.paths if Path(folder).is_dir()]
    return said | ({"PATH": os.pathsep.join([os.environ.get("PATH", ""), *folders])} if folders else {})


def _first_line(command: str, recipe: Recipe) -> str:
    words = shlex.split(command)
    if not words:
        raise ConfigError(f"recipe {recipe.name!r} has an empty $()", "mend its build_env")
    program = find_tool(words[0], recipe.detect.paths) or words[0]
    outcome = capture([program, *words[1:]], timeout=30.0)
    lines = outcome.output.splitlines()
    if not outcome.succeeded or not lines:
        raise BuildFailedError(
            f"`{command}` of recipe {recipe.name!r} failed: {outcome.output.strip()}", "run `llamamgr doctor`"
        )
    return lines[0].strip()


def _shipped() -> Path:
    inside = _PACKAGE / "recipes" / "arch"
    return inside if inside.is_dir() else _PACKAGE.parent / "recipes" / "arch"
