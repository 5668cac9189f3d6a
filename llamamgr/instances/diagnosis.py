"""What ``llamamgr doctor`` looks at here: compiler, tools, GPU toolkits, disk and instances, each with what mends it."""

from __future__ import annotations

import msgspec

from llamamgr.core.errors import LlamamgrError
from llamamgr.core.recipe import Requirement
from llamamgr.host.compilers import (
    compile_fault,
    compiler,
    examine,
    free_space,
    package_manager,
    processor,
)
from llamamgr.host.machine import this_machine
from llamamgr.host.package_index import pip_command
from llamamgr.host.paths import Paths
from llamamgr.instances import prerequisites as needs
from llamamgr.instances.prerequisites import Sighting, look_for
from llamamgr.instances.recipes import shelf
from llamamgr.instances.store import Store
from llamamgr.instances.tools import local_tool

_ROOM = 2 * 1000**3  # bytes that the sources, the objects and one build take on the way


class Finding(msgspec.Struct, frozen=True):
    """One line: ``good`` or not, what was found, and what to type if it is not.

    ``required``: llamamgr is of no use without it. What does not ``apply`` to this machine is neither good nor bad here.
    """

    name: str
    good: bool
    text: str
    mend: str = ""
    required: bool = False
    applies: bool = True


def findings(paths: Paths) -> tuple[Finding, ...]:
    """Everything there is to know before a build, in the order in which a build needs it."""
    manager = package_manager()
    return (
        _compiler(manager),
        *(_build_tool(name, paths, manager) for name in ("cmake", "ninja")),
        _tool(needs.GIT, manager, "sources come from the package index instead"),
        _tool(needs.CCACHE, manager, "optional: makes building again faster"),
        *_arches(paths),
        _disk(paths),
        *_instances(paths),
    )


def _compiler(manager: str) -> Finding:
    found = compiler()
    if found is None:
        return Finding("compiler", False, "no C++ compiler", needs.COMPILER.command(manager), required=True)
    fault = compile_fault(found.path)
    text = f"{found.line}; {processor()}" if not fault else f"{found.path} cannot compile: {fault}"
    return Finding(
        "compiler", not fault, text, needs.COMPILER.command(manager) if fault else "", required=True
    )


def _build_tool(name: str, paths: Paths, manager: str) -> Finding:
    """Missing is no harm where pip can fetch the wheel."""
    tool = local_tool(name, paths)
    if tool is not None:
        return Finding(name, True, f"{tool.version} ({tool.path})", required=True)
    try:
        pip_command()
    except LlamamgrError:
        requirement = {"cmake": needs.CMAKE, "ninja": needs.NINJA}[name]
        return Finding(
            name, False, "not found, and no pip to fetch it with", requirement.command(manager), required=True
        )
    return Finding(name, True, "not found; `llamamgr install` fetches the wheel", required=True)


def _tool(requirement: Requirement, manager: str, otherwise: str) -> Finding:
    tool = examine(requirement.tool)
    if tool is None:
        return Finding(requirement.reason, False, f"not found; {otherwise}", requirement.command(manager))
    return Finding(requirement.reason, True, f"{tool.version} ({tool.path})")


def _arches(paths: Paths) -> list[Finding]:
    """What is here for each arch that this system may have; those for a CPU differ in nothing that needs telling."""
    known, machine = shelf(paths), this_machine()
    told = []
    for recipe in known.recipes.values():
        systems = recipe.detect.systems
        if recipe.verify_device and (not systems or machine.system in systems):
            told.append(_arch(look_for(recipe, machine)))
    told += [Finding("recipe", False, broken.error.what, broken.error.hint) for broken in known.broken]
    return told


def _arch(sighting: Sighting) -> Finding:
    recipe = sighting.recipe
    text = f"{recipe.title}: {sighting.why}"
    if sighting.is_complete:
        return Finding(recipe.name, True, f"{text}; `--arch auto` can take it")
    if not sighting.hardware:
        ready = "all for building is here" if sighting.can_build else f"`llamamgr recipes show {recipe.name}`"
        return Finding(recipe.name, True, f"{recipe.title}: {sighting.lack}; {ready}", applies=False)
    driver = f"install the driver of the {recipe.hardware}" if sighting.lack else ""
    return Finding(recipe.name, False, text, "; ".join(filter(None, (driver, sighting.command))))


def _disk(paths: Paths) -> Finding:
    free = free_space(paths.data)
    text = f"{free / 1000**3:.1f} GB free for {paths.data}"
    mend = (
        ""
        if free >= _ROOM
        else f"free {_ROOM / 1000**3:.0f} GB there, or set LLAMAMGR_HOME to a folder on another disk"
    )
    return Finding("disk", free >= _ROOM, text, mend, required=True)


def _instances(paths: Paths) -> list[Finding]:
    found, warnings = Store(paths).instances()
    lines = [
        Finding("store", False, warning, "remove that folder if nothing needs it") for warning in warnings
    ]
    for instance in found:
        build, name = instance.current_build, instance.spec.name
        if build is None:
            lines.append(
                Finding("instance", False, f"{name}: no working build", f"llamamgr install --instance {name}")
            )
        else:
            card = build.card
            lines.append(Finding("instance", True, f"{name}: b{card.number} ({card.commit}) for {card.arch}"))
    return lines or [Finding("instance", False, "no llama.cpp is installed yet", "llamamgr install")]
