"""``llamamgr recipes`` and ``llamamgr recipes show NAME``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llamamgr.host.machine import Machine
    from llamamgr.host.paths import Paths
    from llamamgr.instances.prerequisites import Sighting
    from llamamgr.instances.recipes import Shelf

_HEAD = ("NAME", "PRIORITY", "HERE", "WHY")


def recipes(
    action: Annotated[str, typer.Argument(metavar="[show]", help="Show one recipe in full.")] = "",
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The recipe to show.")] = "",
    gpu_targets: Annotated[
        str, typer.Option(metavar="LIST", help="show: as if built for these GPU generations.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the arches that llama.cpp can be built for, what is here of each, and what is missing.

    The first that is here and has no negative priority is what `--arch auto` takes. Recipes of yours go into the folder `recipes`
    beside config.toml; one that says `extends = "cuda"` needs only name what is different.
    """
    from llamamgr.core.errors import UsageError
    from llamamgr.host.machine import this_machine
    from llamamgr.host.paths import Paths
    from llamamgr.instances.recipes import shelf

    if action not in ("", "show") or (action == "show") != bool(name):
        raise UsageError(
            f"{action!r} is not understood here" if action != "show" else "which recipe?",
            "`llamamgr recipes` or `llamamgr recipes show NAME`",
        )
    paths = Paths.of_environment()
    if name:
        _show(paths, name, gpu_targets, this_machine(), as_json)
    else:
        _list(shelf(paths), this_machine(), as_json)


def _list(known: Shelf, machine: Machine, as_json: bool) -> None:
    from llamamgr.cli.output import print_table
    from llamamgr.instances.prerequisites import look_for

    seen = [look_for(recipe, machine) for recipe in known.recipes.values()]
    best = next((s.recipe.name for s in seen if s.is_complete and s.recipe.priority >= 0), "")
    if as_json:
        _print_json(
            {
                "auto": best,
                "recipes": [_summary(sighting, known) for sighting in seen],
                "broken": [
                    {"name": b.arch, "file": b.file, "error": b.error.what, "hint": b.error.hint}
                    for b in known.broken
                ],
            }
        )
        return
    print_table(_HEAD, [_row(sighting) for sighting in seen])
    if best:
        print(f"\n`--arch auto` takes {best}")
    for broken in known.broken:
        print(f"warning: {broken.error.what}\nhint: {broken.error.hint}", file=sys.stderr)


def _row(sighting: Sighting) -> tuple[str, ...]:
    recipe = sighting.recipe
    return (
        recipe.name,
        str(recipe.priority),
        "yes" if sighting.is_complete else "no",
        f"{recipe.title}: {sighting.why}",
    )


def _summary(sighting: Sighting, known: Shelf) -> dict[str, Any]:
    recipe = sighting.recipe
    return {
        "name": recipe.name,
        "title": recipe.title,
        "file": known.files[recipe.name],
        "priority": recipe.priority,
        "detected": sighting.is_complete,
        "can_build": sighting.can_build,
        "hardware": sighting.hardware,
        "why": sighting.why,
        "needs": [
            {
                "reason": need.requirement.reason,
                "least": need.requirement.least,
                "found": need.found,
                "fault": need.fault,
                "command": "" if need.is_met else need.command(sighting.package_manager),
            }
            for need in sighting.needs
        ],
    }


def _show(paths: Paths, name: str, gpu_targets: str, machine: Machine, as_json: bool) -> None:
    from llamamgr.cli.recipe_text import describe
    from llamamgr.instances.build_plan import build_plan
    from llamamgr.instances.prerequisites import look_for
    from llamamgr.instances.recipes import choose, shelf

    choice = choose(paths, name, machine)
    sighting = look_for(choice.recipe, machine)
    # programs and scripts of a toolkit that is not here cannot be asked
    plan = build_plan(choice.recipe, gpu_targets, machine) if sighting.can_build else None
    if as_json:
        import msgspec

        known = shelf(paths)
        recipe = msgspec.to_builtins(plan.recipe if plan else choice.recipe)
        decided = (
            {"targets": plan.targets, "targets_from": plan.targets_from, "setup": plan.setup} if plan else {}
        )
        arguments = (plan.recipe if plan else choice.recipe).cmake_arguments()
        _print_json({**_summary(sighting, known), "recipe": recipe, "arguments": arguments, "plan": decided})
        return
    print("\n".join(describe(sighting, plan)))


def _print_json(document: object) -> None:
    import json

    print(json.dumps(document, indent=2))
