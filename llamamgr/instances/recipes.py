"""The arch recipes in force, and which is this machine's best.

Recipes of the user's (``<config>/recipes/*.toml``) add to the shipped ones or replace one of the same name, whole or with
``extends = "cuda"``: then only what the file says is different. A file that cannot be understood hides none of the others. Shipped
ones lie in the wheel as ``llamamgr/recipes/arch`` and in a checkout as ``recipes/arch`` beside the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llamamgr.core.errors import ConfigError, NotFoundError, PermissionDeniedError
from llamamgr.core.recipe import Recipe, extended, parse_recipe
from llamamgr.host.files import read_toml
from llamamgr.host.machine import Machine, this_machine
from llamamgr.host.paths import Paths
from llamamgr.instances.prerequisites import Sighting, look_for

_PACKAGE = Path(__file__).resolve().parent.parent


class Broken(msgspec.Struct, frozen=True):
    """A recipe file that cannot be used: the arch it stands for as far as one can tell, and why."""

    arch: str
    file: str
    error: ConfigError


class Shelf(msgspec.Struct, frozen=True):
    """All recipes by name, best first; ``files`` says where each comes from."""

    recipes: dict[str, Recipe]
    files: dict[str, str]
    broken: tuple[Broken, ...]


class Choice(msgspec.Struct, frozen=True):
    """The recipe to build by, ``why`` in one sentence, and what is worth knowing of better ones that were passed over."""

    recipe: Recipe
    why: str
    passed_over: tuple[str, ...] = ()


def shelf(paths: Paths) -> Shelf:
    """Every recipe there is, the broken ones set apart."""
    shipped = {path.stem: path for path in sorted(_shipped().glob("*.toml"))}
    reader = _Reader({name: read_toml(path) for name, path in shipped.items()})
    for path in sorted(users_folder(paths).glob("*.toml")):
        reader.add(path)
    found, broken = reader.parsed({name: str(path) for name, path in shipped.items()})
    best_first = sorted(found, key=lambda name: (-found[name][0].priority, name))
    return Shelf(
        {name: found[name][0] for name in best_first},
        {name: found[name][1] for name in best_first},
        tuple(broken),
    )


def users_folder(paths: Paths) -> Path:
    return paths.config / "recipes"


def recipes(paths: Paths) -> dict[str, Recipe]:
    """All recipes that can be used, by name, best first."""
    return shelf(paths).recipes


def recipe_for(paths: Paths, arch: str, machine: Machine | None = None) -> Recipe:
    """The recipe ``arch``; for ``auto`` the best that this machine has all for."""
    return choose(paths, arch, machine).recipe


def choose(paths: Paths, arch: str, machine: Machine | None = None) -> Choice:
    """``arch`` as a recipe. ``NotFoundError`` names those there are, ``ConfigError`` the file when that one is broken."""
    known = shelf(paths)
    if arch != "auto":
        _refuse_broken(known, arch)
        if arch not in known.recipes:
            raise NotFoundError(
                f"there is no arch {arch!r}", f"choose auto or one of: {', '.join(known.recipes)}"
            )
        return Choice(known.recipes[arch], "asked for")
    choice = _best(known, machine or this_machine())
    _refuse_broken(known, choice.recipe.name)
    return choice


def _best(known: Shelf, machine: Machine) -> Choice:
    passed: list[str] = []
    for recipe in known.recipes.values():
        sighting = look_for(recipe, machine) if recipe.priority >= 0 else None
        if sighting is not None and sighting.is_complete:
            return Choice(recipe, sighting.why, tuple(passed))
        if sighting is not None and sighting.hardware:
            passed.append(_told(sighting))
    raise NotFoundError("no recipe fits this machine", "name one: `llamamgr recipes` lists them")


def _told(sighting: Sighting) -> str:
    """Why an arch whose hardware is here is not taken, and what to type to have it."""
    told = f"{sighting.recipe.name} is not taken: {sighting.why}"
    if not sighting.missing:
        return told
    return f"{told}; {sighting.command}, then llamamgr install --arch {sighting.recipe.name}"


def _refuse_broken(known: Shelf, arch: str) -> None:
    """A broken file that stands for ``arch`` must not silently give way to the shipped recipe."""
    for broken in known.broken:
        if broken.arch == arch:
            raise broken.error


class _Reader:
    """Recipe documents by name, until ``parsed`` puts together what extends what."""

    def __init__(self, shipped: dict[str, dict[str, Any]]) -> None:
        self._shipped = shipped
        self._users: dict[str, tuple[dict[str, Any], Path]] = {}
        self._broken: list[Broken] = []

    def add(self, path: Path) -> None:
        try:
            document = read_toml(path)
        except (ConfigError, PermissionDeniedError) as error:
            self._broken.append(Broken(path.stem, str(path), ConfigError(error.what, error.hint)))
            return
        name = str(document.get("name", path.stem))
        if name in self._users:
            other = self._users[name][1]
            fault = ConfigError(f"{path}: {other} is the recipe {name!r} already", "give one another name")
            self._broken.append(Broken(name, str(path), fault))
        else:
            self._users[name] = ({"name": name, **document}, path)

    def parsed(self, shipped_files: Mapping[str, str]) -> tuple[dict[str, tuple[Recipe, str]], list[Broken]]:
        found = {
            name: (parse_recipe(document, shipped_files[name]), shipped_files[name])
            for name, document in self._shipped.items()
        }
        for name, (_, path) in self._users.items():
            try:
                found[name] = (parse_recipe(self._whole(name, ()), str(path)), str(path))
            except ConfigError as error:
                self._broken.append(Broken(name, str(path), error))
        return found, self._broken

    def _whole(self, name: str, above: tuple[str, ...]) -> dict[str, Any]:
        """The user's document ``name`` with what it extends below it."""
        document, path = self._users[name]
        own = {key: value for key, value in document.items() if key != "extends"}
        base = document.get("extends")
        if base is None:
            return own
        if base in self._users and base != name:
            if base in above:
                raise ConfigError(f"{path}: {base!r} and {name!r} extend each other", "let one stand alone")
            return extended(self._whole(base, (*above, name)), own)
        if base not in self._shipped:
            known = ", ".join(sorted({*self._shipped, *self._users} - {name}))
            raise ConfigError(f"{path}: extends {base!r}, which there is not", f"there are {known}")
        return extended(self._shipped[base], own)


def _shipped() -> Path:
    inside = _PACKAGE / "recipes" / "arch"
    return inside if inside.is_dir() else _PACKAGE.parent / "recipes" / "arch"
