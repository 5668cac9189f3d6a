"""What ``llamamgr doctor`` looks at here: compiler, tools, GPU toolkits, disk and instances, each with what mends it."""

from __future__ import annotations

import msgspec

from llamamgr.core.errors import LlamamgrError
from llamamgr.core.recipe import Recipe, Requirement
from llamamgr.host.compilers import (
    compile_fault,
    compiler,
    examine,
    exists,
    find_tool,
    free_space,
    package_manager,
    processor,
)
from llamamgr.host.package_index import pip_command
from llamamgr.host.paths import Paths
from llamamgr.instances import prerequisites as needs
from llamamgr.instances.prerequisites import is_met
from llamamgr.instances.recipes import is_detected, recipes, this_machine
from llamamgr.instances.store import Store
from llamamgr.instances.tools import local_tool

_ROOM = 2 * 1000**3  # bytes that the sources, the objects and one build take on the way

_ONEAPI = Requirement(
    reason="Intel compiler", tool="icx", other="install oneAPI from https://www.intel.com/oneapi"
)


class Finding(msgspec.Struct, frozen=True):
    """One line: ``good`` or not, whether llamamgr is of no use without it, what was found, and what to type if it is not."""

    name: str
    good: bool
    text: str
    mend: str = ""
    required: bool = False


def findings(paths: Paths) -> tuple[Finding, ...]:
    """Everything there is to know before a build, in the order in which a build needs it."""
    manager = package_manager()
    return (
        _compiler(manager),
        *(_build_tool(name, paths, manager) for name in ("cmake", "ninja")),
        _tool(needs.GIT, manager, "sources come from the package index instead"),
        _tool(needs.CCACHE, manager, "optional: makes building again faster"),
        *(_toolkit(recipe, manager) for recipe in recipes(paths).values() if _may_apply(recipe)),
        _oneapi(),
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


def _may_apply(recipe: Recipe) -> bool:
    systems = recipe.detect.systems
    return bool(recipe.verify_device) and (not systems or this_machine().system in systems)


def _toolkit(recipe: Recipe, manager: str) -> Finding:
    missing = [requirement for requirement in recipe.requires if not is_met(requirement, recipe)]
    has_device = any(exists(pattern) for pattern in recipe.detect.devices) or not recipe.detect.devices
    seen = "a GPU of this kind is here" if has_device else "no GPU of this kind is here"
    if missing:
        names = ", ".join(requirement.reason for requirement in missing)
        commands = "; ".join(dict.fromkeys(requirement.command(manager) for requirement in missing))
        return Finding(recipe.name, False, f"{recipe.title} (optional): no {names}; {seen}", commands)
    best = (
        "; `--arch auto` can take it"
        if is_detected(recipe, this_machine())
        else f"; `--arch {recipe.name}` builds for it"
    )
    return Finding(recipe.name, True, f"{recipe.title} (optional): {_versions(recipe)}; {seen}{best}")


def _versions(recipe: Recipe) -> str:
    tools = [(r.tool, examine(r.tool, recipe.detect.paths)) for r in recipe.requires if r.tool]
    return ", ".join(f"{name} {tool.version}".strip() if tool else name for name, tool in tools) or "ready"


def _oneapi() -> Finding:
    path = find_tool(_ONEAPI.tool, ("/opt/intel/oneapi/compiler/latest/bin",))
    if not path:
        return Finding("sycl", False, "Intel oneAPI (optional): no icx", _ONEAPI.other)
    return Finding("sycl", True, f"Intel oneAPI (optional): {path}")


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
