"""One recipe in full, as people read it: what it needs, what it comes to here, how its builds are run and verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llamamgr.core.recipe import Recipe
from llamamgr.instances.build_plan import BuildPlan
from llamamgr.instances.prerequisites import Need, Sighting


def describe(sighting: Sighting, plan: BuildPlan | None) -> list[str]:
    """The lines of ``llamamgr recipes show``; without a plan, what the recipe says by itself."""
    recipe = plan.recipe if plan else sighting.recipe
    return [
        f"{recipe.name}: {recipe.title}, priority {recipe.priority}",
        f"here: {'yes' if sighting.is_complete else 'no'}: {sighting.why}",
        *_section("needs", _needs(sighting)),
        *_section("CMake options", recipe.cmake_arguments()),
        *_section("GPU targets", _targets(recipe, plan)),
        *_section("environment script", _setup(recipe, plan)),
        *_section("environment of the build", _variables(recipe.build_env)),
        *_section("environment of the server", _variables(recipe.runtime_env)),
        *_section("verified on", [_verified_on(recipe)]),
    ]


def _section(heading: str, lines: Iterator[str] | list[str] | tuple[str, ...]) -> list[str]:
    below = [f"  {line}" for line in lines]
    return [heading, *below] if below else []


def _needs(sighting: Sighting) -> Iterator[str]:
    for need in sighting.needs:
        yield _need(need)
        if not need.is_met:
            yield f"    → {need.command(sighting.package_manager)}"
    if sighting.recipe.cmake_least:
        yield f"· CMake {sighting.recipe.cmake_least} or newer; its wheel is fetched where there is an older one"


def _need(need: Need) -> str:
    requirement = need.requirement
    least = f" {requirement.least} or newer" if requirement.least else ""
    mark = "✓" if need.is_met else "✗"
    return f"{mark} {requirement.reason}{least}: {need.fault or need.found}"


def _targets(recipe: Recipe, plan: BuildPlan | None) -> Iterator[str]:
    if recipe.targets is None:
        return
    example = f"--gpu-targets '{recipe.targets.example}'"
    if plan and plan.targets:
        yield f"{';'.join(plan.targets)}, by {plan.targets_from}; others by {example}"
    else:
        yield f"the build's own choice; others by {example}"


def _setup(recipe: Recipe, plan: BuildPlan | None) -> Iterator[str]:
    if plan and plan.setup:
        yield plan.setup
    elif recipe.setup:
        yield f"the first of {', '.join(recipe.setup)}"


def _variables(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def _verified_on(recipe: Recipe) -> str:
    if not recipe.verify_device:
        return "the CPU"
    return f"the CPU and each device whose name begins with {recipe.verify_device}"
