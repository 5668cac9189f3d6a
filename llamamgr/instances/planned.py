"""What an install would do, told without doing any of it: no folder is made, no host is asked."""

from __future__ import annotations

from pathlib import Path

from llamamgr.core.cards import InstanceSpec, Source
from llamamgr.core.errors import LlamamgrError
from llamamgr.core.recipe import Recipe, parse_targets
from llamamgr.host.compilers import parallel_jobs
from llamamgr.host.git import without_login
from llamamgr.host.paths import Paths
from llamamgr.instances.build import RPC_TARGETS, TARGETS, Order, configure_command
from llamamgr.instances.build_plan import build_plan
from llamamgr.instances.prebuilt import index_address
from llamamgr.instances.prerequisites import require
from llamamgr.instances.recipes import choose
from llamamgr.instances.sources import Tree, described
from llamamgr.instances.store import Instance, Store
from llamamgr.instances.tools import BuildTools
from llamamgr.instances.updating import existing
from llamamgr.instances.wishes import Wish, already, merged

_STAMPS = ("-DLLAMA_BUILD_NUMBER", "-DLLAMA_BUILD_COMMIT")
_PLACES = ("-DCMAKE_MAKE_PROGRAM",)

Section = tuple[str, tuple[str, ...]]


def planned(wish: Wish, paths: Paths) -> tuple[Section, ...]:
    """The plan as titled lines: instance, source, arch and why, what is missing, CMake's arguments, targets, where, and after.

    Raises as ``install`` for a wish that makes no sense; a missing toolkit is part of the plan.
    """
    store = Store(paths)
    former = store.find(wish.instance)
    if wish.fresh and former is None:
        existing(store, wish.instance)
    spec = merged(former.spec if former else None, wish, paths)
    choice = choose(paths, wish.arch or (former.spec.arch if former else "auto"))
    why = choice.why if wish.arch or former is None else "as the instance has it"
    folder = str(paths.instances / spec.name / "builds")
    ready = None if wish.reinstall or wish.fresh else already(former, spec, wish)
    lines: list[Section] = [
        ("instance", (f"{spec.name} ({_state(former)})",)),
        ("source", (_source(spec.source),)),
        ("arch", (f"{spec.arch}: {why}", *choice.passed_over)),
    ]
    if wish.fresh and former is not None and spec.pinned:
        return (*lines, ("to do", ("nothing: the instance is pinned",)))
    if ready is not None:
        return (*lines, ("to do", (f"nothing: {ready.card.id} is what is wanted, and current",)))
    if spec.source is not None and spec.source.kind == "linked":
        return (*lines, ("to do", ("nothing: it is linked to what somebody else has built",)))
    if spec.source is None or spec.source.kind != "prebuilt":
        lines += _build(spec, choice.recipe, wish)
    verdict = "the self-test decides" if wish.verify else "without a self-test"
    return (*lines, ("where", (folder,)), ("after", (f"becomes the current build: {verdict}",)))


def _state(former: Instance | None) -> str:
    if former is None:
        return "new"
    return f"current build {former.current}" if former.current else "without a working build"


def _source(source: Source | None) -> str:
    if source is not None and source.kind == "prebuilt":
        return f"release archive of {without_login(source.location or index_address())}, {source.ref or 'the newest'}"
    return described(source)


def _filled(recipe: Recipe, spec: InstanceSpec) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with all filled in that can be known here, and what is missing for the rest."""
    asked = recipe.for_targets(parse_targets(recipe, spec.gpu_targets))
    try:
        require(recipe, git_needed=spec.source is not None and spec.source.kind == "git")
        return build_plan(recipe, spec.gpu_targets).recipe, ()
    except LlamamgrError as error:
        return asked, tuple(str(error).splitlines())


def _build(spec: InstanceSpec, recipe: Recipe, wish: Wish) -> list[Section]:
    recipe, missing = _filled(recipe, spec)
    order = Order((*recipe.cmake_arguments(), *spec.cmake_args), spec.rpc, wish.jobs or parallel_jobs())
    folder = Path(spec.source.location) if spec.source and spec.source.kind == "directory" else Path("SOURCE")
    argv = configure_command(
        Tree(folder, Source("git"), 0, ""), order, BuildTools("cmake", "ninja"), Path("BUILD")
    )
    shown = [word for word in argv[1:] if not word.startswith((*_STAMPS, *_PLACES))]
    places, rest = shown[:6], shown[6:]
    sections: list[Section] = [("missing", missing)] if missing else []
    stamped = "and the number and commit of the source, which are stamped in"
    sections.append(("cmake", (" ".join(places), *rest, stamped)))
    if recipe.build_env:
        sections.append(("with", tuple(f"{key}={value}" for key, value in recipe.build_env.items())))
    targets = (*TARGETS, *(RPC_TARGETS[:1] if spec.rpc else ()))
    sections += [("targets", (", ".join(targets),)), ("compilers", (f"{order.jobs} at once",))]
    return sections
