"""What a recipe comes to on this machine: GPU targets asked, environment captured, programs answered."""

from __future__ import annotations

import re
import shlex

import msgspec

from llamamgr.core.errors import BuildFailedError, ConfigError
from llamamgr.core.recipe import Recipe, parse_targets
from llamamgr.host.machine import Machine, this_machine
from llamamgr.host.processes import capture
from llamamgr.host.setup_scripts import sourced

_COMMAND = re.compile(r"\$\(([^()]*)\)")


class BuildPlan(msgspec.Struct, frozen=True):
    """``recipe`` with all filled in that the machine or the user decides: ``cmake``, ``build_env`` and ``runtime_env`` are final.

    ``targets`` are the GPU generations to build for, ``targets_from`` is who said so: ``--gpu-targets``, a program, the recipe, or
    "" = nobody, the build's own choice. ``setup`` is the script that was sourced ("" = none).
    """

    recipe: Recipe
    targets: tuple[str, ...] = ()
    targets_from: str = ""
    setup: str = ""


def build_plan(recipe: Recipe, gpu_targets: str = "", machine: Machine | None = None) -> BuildPlan:
    """The plan for ``recipe`` and the wished ``gpu_targets`` ("" = what is in the machine).

    ``UsageError`` for targets that the arch has not; ``BuildFailedError`` when a program or script of the toolkit fails.
    """
    seen = machine or this_machine()
    targets, said_by = parse_targets(recipe, gpu_targets), "--gpu-targets"
    if not targets:
        targets, said_by = targets_here(recipe, seen)
    script = seen.match(recipe.setup)
    captured = sourced(script) if script else {}
    final = msgspec.structs.replace(
        recipe.for_targets(targets),
        build_env=captured | _answered(recipe, seen) | _search_path(recipe, captured, seen),
        runtime_env=captured | recipe.runtime_env,
    )
    return BuildPlan(final, targets, said_by, seen.named(script))


def targets_here(recipe: Recipe, machine: Machine) -> tuple[tuple[str, ...], str]:
    """The GPU generations in ``machine``, and the program that told them."""
    if recipe.targets is None:
        return (), ""
    for ask in recipe.targets.ask:
        said = machine.ask(ask.command, recipe.detect.paths)
        matches = re.finditer(ask.pattern, said, re.MULTILINE)
        targets = tuple(dict.fromkeys("".join(filter(None, match.groups())) or match[0] for match in matches))
        if targets:
            return targets, ask.command[0]
    usual = parse_targets(recipe, recipe.targets.otherwise)
    return usual, "the recipe, as no GPU is seen" if usual else ""


def _answered(recipe: Recipe, machine: Machine) -> dict[str, str]:
    """``build_env`` with each ``$(command)`` replaced by the first line of its output."""
    return {
        key: _COMMAND.sub(lambda match: _first_line(match[1], recipe, machine), value)
        for key, value in recipe.build_env.items()
    }


def _search_path(recipe: Recipe, captured: dict[str, str], machine: Machine) -> dict[str, str]:
    """The recipe's folders at PATH's end, where CMake finds the tools that detection has found."""
    folders = machine.folders(recipe.detect.paths)
    return {"PATH": ":".join([captured.get("PATH", "${PATH}"), *folders])} if folders else {}


def _first_line(command: str, recipe: Recipe, machine: Machine) -> str:
    words = shlex.split(command)
    if not words:
        raise ConfigError(f"recipe {recipe.name!r} has an empty $()", "mend its build_env")
    program = machine.find(words[0], recipe.detect.paths) or words[0]
    outcome = capture([program, *words[1:]], timeout=30.0)
    lines = outcome.output.splitlines()
    if not outcome.succeeded or not lines:
        raise BuildFailedError(
            f"`{command}` of recipe {recipe.name!r} failed: {outcome.output.strip()}", "run `llamamgr doctor`"
        )
    return lines[0].strip()
