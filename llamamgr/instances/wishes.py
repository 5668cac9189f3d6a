"""What somebody wants of an instance, laid over what it is already.

What a wish does not say stays as the instance has it, and what that does not say is the default. CMake's arguments are layered the
same way: what every build gets, then the recipe's, then the instance's own, then those typed now; the last word on an option wins.
"""

from __future__ import annotations

import time

import msgspec

from llamamgr.core.cards import Build, BuildCard, InstanceSpec, Source
from llamamgr.core.errors import UsageError
from llamamgr.core.recipe import parse_targets
from llamamgr.host.paths import Paths
from llamamgr.instances.recipes import recipe_for
from llamamgr.instances.sources import Aim, Found, aimed, is_same
from llamamgr.instances.store import Instance


class Wish(msgspec.Struct, frozen=True):
    """What somebody asked for; None and "" leave a matter as it is, or to the default of a new instance.

    ``aim`` names a version of the source. ``cmake_args`` come on top of the instance's own; an empty tuple clears those, and ""
    the ``gpu_targets``.
    ``fresh``: build from the newest that the source has, if that is not what is current; ``reinstall``: build in any case.
    ``verify``: the self-test decides; without it a build that can say its options becomes current as it is.
    """

    instance: str = "default"
    arch: str = ""
    source: Source | None = None
    cmake_args: tuple[str, ...] | None = None
    gpu_targets: str | None = None
    rpc: bool | None = None
    jobs: int = 0
    reinstall: bool = False
    aim: Aim | None = None
    fresh: bool = False
    verify: bool = True
    ignore_python: bool | None = None


def merged(former: InstanceSpec | None, wish: Wish, paths: Paths) -> InstanceSpec:
    """What the instance shall be: the wish where it says something, else as it was, else the defaults.

    ``UsageError`` for what its source cannot have: options of a build, where nothing is built.
    """
    old = former or InstanceSpec(wish.instance, arch="auto", created=time.time())
    recipe = recipe_for(paths, wish.arch or old.arch)
    former_targets = old.gpu_targets if recipe.name == old.arch else ""  # they are of one arch
    targets = former_targets if wish.gpu_targets is None else wish.gpu_targets
    source = wish.source if wish.source is not None else old.source
    _refuse_what_is_for_builds(wish, source)
    return InstanceSpec(
        name=wish.instance,
        arch=recipe.name,
        source=aimed(source, wish.aim) if wish.aim else source,
        cmake_args=_layered(old.cmake_args, wish.cmake_args),
        gpu_targets=";".join(parse_targets(recipe, targets)),
        rpc=old.rpc if wish.rpc is None else wish.rpc,
        created=old.created,
        pinned=old.pinned,
        ignore_python=old.ignore_python if wish.ignore_python is None else wish.ignore_python,
        said=tuple(sorted({*old.said, *_said(wish)})),
    )


def _refuse_what_is_for_builds(wish: Wish, source: Source | None) -> None:
    """What would be passed over in silence where somebody else has built the programs."""
    kind = source.kind if source is not None else ""
    if source is None or kind not in ("linked", "prebuilt"):
        return
    options = {
        "--cmake-args": wish.cmake_args,
        "--gpu-targets": wish.gpu_targets,
        "--rpc": wish.rpc,
    }
    if kind == "linked":
        options |= {"--arch": wish.arch, "--reinstall": wish.reinstall, "--ignore-python": wish.ignore_python}
    asked = [option for option, value in options.items() if value]
    if asked:
        what = f"is linked to {source.location}" if kind == "linked" else "takes release archives"
        raise UsageError(
            f"{' and '.join(asked)} is for builds, and instance {wish.instance!r} {what}",
            "build it: name a source, such as --source git, or another --instance",
        )


def already(instance: Instance | None, spec: InstanceSpec, wish: Wish) -> Build | None:
    """The current build when it is just what ``spec`` asks for, and good: nothing to do then."""
    current = instance.current_build if instance else None
    if instance is None or current is None or instance.ledger.mark(current.card.id):
        return None
    is_good = current.card.verified or not wish.verify
    return (
        current
        if is_good and _fulfils(current.card, spec) and is_same(spec.source, current.card.source)
        else None
    )


def built_before(instance: Instance | None, found: Found, spec: InstanceSpec) -> tuple[Build, ...]:
    """The builds that would come out again if ``found`` were built as wished: current first, then the verified ones."""
    same = [
        b for b in (instance.builds if instance else ()) if found.is_of(b.card) and _fulfils(b.card, spec)
    ]
    current = instance.current if instance else ""
    return tuple(sorted(same, key=lambda build: (build.card.id != current, not build.card.verified)))


def _fulfils(card: BuildCard, spec: InstanceSpec) -> bool:
    """Whether a build of this card has the arch and the options that are wished, whatever its version."""
    has = (card.arch, card.own_args, card.gpu_targets, card.rpc)
    return has == (spec.arch, spec.cmake_args, spec.gpu_targets, spec.rpc) and (
        card.python or spec.ignore_python
    )


def _layered(own: tuple[str, ...], typed: tuple[str, ...] | None) -> tuple[str, ...]:
    """``typed`` over ``own``: an option that is set again replaces what was said of it before."""
    if typed is None:
        return own
    if not typed:
        return ()
    again = {option for argument in typed if (option := _option(argument))}
    return (*(argument for argument in own if _option(argument) not in again), *typed)


def _option(argument: str) -> str:
    """``-DGGML_BLAS:BOOL=ON`` → ``GGML_BLAS``; "" for what sets no cache entry."""
    return (
        argument.removeprefix("-D").partition("=")[0].partition(":")[0] if argument.startswith("-D") else ""
    )


def _said(wish: Wish) -> set[str]:
    """The matters that the wish speaks of, so that ``instance show`` can tell them from defaults."""
    spoken = {
        "arch": wish.arch not in ("", "auto"),
        "source": wish.source is not None or wish.aim is not None,
        "cmake_args": wish.cmake_args is not None,
        "gpu_targets": bool(wish.gpu_targets),
        "rpc": wish.rpc is not None,
        "ignore_python": wish.ignore_python is not None,
    }
    return {matter for matter, is_said in spoken.items() if is_said}
