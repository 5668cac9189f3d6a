"""Recipes: how one arch is detected, built, run and verified; one TOML file each (``recipes/arch/*.toml``).

A recipe is data. It cannot run a shell: the only thing that it may execute is a ``$(program argument …)`` inside a ``build_env``
value, which is replaced by the first line that the program prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from llamamgr.core.errors import ConfigError

PACKAGE_MANAGERS = ("apt", "dnf", "pacman", "zypper", "brew")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


class Detect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a machine is of this arch: all of ``tools`` (on PATH or in ``paths``) and any of ``devices`` (globs), on ``systems``.

    Empty lists ask for nothing. ``systems`` are ``platform.system()`` words: Linux, Darwin, Windows.
    """

    tools: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that a build needs: ``tool`` on PATH or any of ``files`` (globs), and the command that provides it.

    ``reason`` says what it is. A missing command of a package manager falls back to ``other``, a sentence or an address.
    """

    reason: str
    tool: str = ""
    files: tuple[str, ...] = ()
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


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One arch. The detected one with the highest ``priority`` is this machine's best.

    ``cmake`` are cache entries (``GGML_CUDA = "ON"``); ``gpu_targets`` names the entry that takes the GPU generations to build for
    ("" = none); ``build_env`` and ``runtime_env`` are environment variables; ``verify_device`` is how names in ``--list-devices``
    begin for this arch ("" = the CPU only).
    """

    name: str
    title: str
    priority: int
    detect: Detect = Detect()
    requires: tuple[Requirement, ...] = ()
    cmake: dict[str, str] = {}
    gpu_targets: str = ""
    build_env: dict[str, str] = {}
    runtime_env: dict[str, str] = {}
    verify_device: str = ""

    def cmake_arguments(self, gpu_targets: str = "") -> tuple[str, ...]:
        """``-D…`` arguments of this arch; ``gpu_targets`` such as ``86;89`` or ``gfx1100``, "" = the build's own choice."""
        entries = dict(self.cmake)
        if gpu_targets and self.gpu_targets:
            entries[self.gpu_targets] = gpu_targets
        return tuple(f"-D{key}={value}" for key, value in entries.items())


def parse_recipe(data: Mapping[str, Any], origin: str) -> Recipe:
    """A ``Recipe`` of a TOML document; ``ConfigError`` names the file and the key at fault."""
    try:
        recipe = msgspec.convert(data, Recipe)
    except msgspec.ValidationError as error:
        keys = ", ".join(field.name for field in msgspec.structs.fields(Recipe))
        raise ConfigError(f"{origin}: {error}", f"a recipe has the keys {keys}") from None
    if not _NAME.match(recipe.name):
        raise ConfigError(
            f"{origin}: {recipe.name!r} cannot name an arch", "use lower-case letters, digits and '-'"
        )
    for requirement in recipe.requires:
        if not (requirement.tool or requirement.files):
            raise ConfigError(
                f"{origin}: the requirement {requirement.reason!r} names neither tool nor files",
                "add one of them",
            )
    return recipe
