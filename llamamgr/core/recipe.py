"""Recipes: how one arch is detected, built, run and verified; one TOML file each (``recipes/arch/*.toml``).

A recipe is data. What it may execute is named in it and takes no shell: ``$(program argument …)`` inside a ``build_env`` value, the
commands of ``targets.ask``, and the ``setup`` script of a toolkit, which is the one thing that only a shell can read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llamamgr.core.errors import ConfigError, UsageError

PACKAGE_MANAGERS = ("apt", "dnf", "pacman", "zypper", "brew")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_VERSION = re.compile(r"\d+(?:\.\d+)*\Z")
_BETWEEN = re.compile(r"[;,\s]+")


class Detect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of this arch can be seen on a machine. An empty list asks for nothing.

    ===========  ==============================================================================================================
    ``systems``  words of ``platform.system()``: Linux, Darwin, Windows
    ``devices``  any of these says that the hardware is here and its kernel driver works: a glob, or ``glob=text`` for a file that
                 must hold ``text``
    ``drivers``  any of these globs is the part of the driver that programs load
    ``pci``      ``vendor:device`` patterns as in ``lspci -n``: the hardware is here, even when its driver is not
    ``paths``    folders with the arch's tools, besides PATH
    ===========  ==============================================================================================================

    In globs and folders a leading ``~`` or ``$NAME`` is the user's home or an environment variable; one that is not set matches
    nothing.
    """

    systems: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that a build needs: ``tool`` on PATH, of version ``least`` or newer, or any of ``files`` (globs as in ``Detect``).

    Such a file must have the text ``holds`` in it, where that is said. ``reason`` says what it is. A missing command of a package
    manager falls back to ``other``, a sentence or an address.
    """

    reason: str
    tool: str = ""
    least: str = ""
    files: tuple[str, ...] = ()
    holds: str = ""
    apt: str = ""
    dnf: str = ""
    pacman: str = ""
    zypper: str = ""
    brew: str = ""
    other: str = ""

    def command(self, package_manager: str) -> str:
        """What to type on a machine with ``package_manager`` ("" = none known)."""
        known: str = getattr(self, package_manager) if package_manager in PACKAGE_MANAGERS else ""
        return known or self.other


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to learn which GPUs are here: each match of ``pattern`` in what ``command`` prints is one, its groups joined."""

    command: tuple[str, ...]
    pattern: str


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The CMake ``entry`` that takes the GPU generations to build for; each must match ``pattern`` and look like ``example``.

    With none named, the first of ``ask`` that knows any decides, and where none does, ``otherwise``: "" = the build's own default.
    """

    entry: str
    pattern: str
    example: str
    several: bool = True
    otherwise: str = ""
    ask: tuple[Ask, ...] = ()


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One arch. ``--arch auto`` takes the detected one of the highest ``priority``; one below 0 is built only when it is named.

    ``hardware`` names what it is for ("" = any machine). ``cmake`` are cache entries (``GGML_CUDA = "ON"``), ``cmake_least`` the
    oldest CMake that will do. ``setup`` are scripts of the toolkit; the first that is there is sourced, and what it changes in the
    environment belongs to ``build_env`` and ``runtime_env``, which hold environment variables (``${NAME}`` in a value is what the
    environment has). ``verify_device`` is how names in ``--list-devices`` begin for this arch ("" = the CPU only).
    """

    name: str
    title: str
    priority: int
    hardware: str = ""
    detect: Detect = Detect()
    requires: tuple[Requirement, ...] = ()
    cmake: dict[str, str] = {}
    cmake_least: str = ""
    targets: Targets | None = None
    setup: tuple[str, ...] = ()
    build_env: dict[str, str] = {}
    runtime_env: dict[str, str] = {}
    verify_device: str = ""

    def cmake_arguments(self) -> tuple[str, ...]:
        """``-D…`` arguments of this arch."""
        return tuple(f"-D{key}={value}" for key, value in self.cmake.items())

    def for_targets(self, targets: tuple[str, ...]) -> Recipe:
        """This recipe building for ``targets``; none = the build's own choice."""
        if not targets or self.targets is None:
            return self
        return msgspec.structs.replace(self, cmake=self.cmake | {self.targets.entry: ";".join(targets)})


def parse_targets(recipe: Recipe, text: str) -> tuple[str, ...]:
    """``86;89`` or ``gfx1100,gfx1201`` → its parts; ``UsageError`` for what this arch cannot be built for."""
    wanted = tuple(dict.fromkeys(part for part in _BETWEEN.split(text) if part))
    if not wanted:
        return ()
    targets = recipe.targets
    if targets is None:
        raise UsageError(
            f"arch {recipe.name} has no GPU targets, but {text!r} was given", "leave --gpu-targets out"
        )
    wrong = next((part for part in wanted if not re.fullmatch(targets.pattern, part)), "")
    if wrong or (len(wanted) > 1 and not targets.several):
        raise UsageError(
            f"{wrong or text!r} is no GPU target of arch {recipe.name}",
            f"such as --gpu-targets '{targets.example}'",
        )
    return wanted


def version_numbers(text: str) -> tuple[int, ...]:
    """``"3.21"`` → ``(3, 21)``; ``()`` for ""."""
    return tuple(int(part) for part in text.split(".") if part)


def extended(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The document ``change`` laid over ``base``: tables key by key, everything else replaced whole."""
    both = dict(base)
    for key, value in change.items():
        former = both.get(key)
        if isinstance(former, Mapping) and isinstance(value, Mapping):
            both[key] = extended(former, value)
        else:
            both[key] = value
    return both


def parse_recipe(data: Mapping[str, Any], origin: str) -> Recipe:
    """A ``Recipe`` of a TOML document; ``ConfigError`` names the file and the key at fault."""
    try:
        recipe = msgspec.convert(data, Recipe)
    except msgspec.ValidationError as error:
        keys = ", ".join(field.name for field in msgspec.structs.fields(Recipe))
        raise ConfigError(f"{origin}: {error}", f"a recipe has the keys extends, {keys}") from None
    fault = _fault(recipe)
    if fault:
        raise ConfigError(f"{origin}: {fault[0]}", fault[1])
    return recipe


def _fault(recipe: Recipe) -> tuple[str, str] | None:
    """What is wrong with ``recipe`` beyond its types, and what to do about it."""
    if not _NAME.match(recipe.name):
        return f"{recipe.name!r} cannot name an arch", "use lower-case letters, digits and '-'"
    for requirement in recipe.requires:
        if not (requirement.tool or requirement.files):
            return f"the requirement {requirement.reason!r} names neither tool nor files", "add one of them"
        if requirement.least and not requirement.tool:
            return f"the requirement {requirement.reason!r} has a version but no tool to ask", "name the tool"
        if requirement.holds and not requirement.files:
            return f"the requirement {requirement.reason!r} has a text but no files to look into", "add files"
    versions = (recipe.cmake_least, *(requirement.least for requirement in recipe.requires))
    if wrong := next((text for text in versions if text and not _VERSION.match(text)), ""):
        return f"{wrong!r} is no version", "write numbers with dots between, such as 3.21"
    entries = (
        *recipe.cmake,
        *recipe.build_env,
        *recipe.runtime_env,
        *((recipe.targets.entry,) if recipe.targets else ()),
    )
    if wrong := next((key for key in entries if not _ENTRY.match(key)), ""):
        return f"{wrong!r} names no CMake entry or variable", "use letters, digits, '_' and '-'"
    patterns = (
        (recipe.targets.pattern, *(ask.pattern for ask in recipe.targets.ask)) if recipe.targets else ()
    )
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            return f"the pattern {pattern!r} is wrong: {error}", "write a Python regular expression"
    return None
