"""``llamamgr update``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from llamamgr.core.cards import Source
    from llamamgr.host.paths import Paths
    from llamamgr.instances.updating import Updated
    from llamamgr.instances.wishes import Wish


class Done(msgspec.Struct, frozen=True):
    """One instance updated or not: a line for people, and whether another build is current now."""

    text: str
    has_moved: bool


def update(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="The instance. [the one that commands use]")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="All instances.")] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Unload its models, so that they start from the new build at once."),
    ] = False,
    branch: Annotated[
        str | None, typer.Option("--branch", "-b", help="Follow this branch from now on.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Take this tag from now on.")] = None,
    commit: Annotated[str | None, typer.Option(metavar="HASH", help="Take this commit from now on.")] = None,
    version: Annotated[
        str | None, typer.Option(metavar="bNNNN", help="Take this version from now on.")
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", "-j", min=0, help="Compilers at once. [as CPUs and memory allow]")
    ] = 0,
) -> None:
    """Build the newest that an instance's source has, beside the build that runs; it becomes current once it is verified.

    Loaded models keep their build and take the new one when they are started the next time. Pinned instances are passed over.
    """
    from llamamgr.cli.sources import aim_of
    from llamamgr.core.errors import LlamamgrError, UsageError
    from llamamgr.host.paths import Paths
    from llamamgr.instances.wishes import Wish

    aim = aim_of(branch, tag, commit, version)
    if every and (name or aim):
        raise UsageError("--all takes no name and no version", "update them one by one")
    paths = Paths.of_environment()
    failures: list[LlamamgrError] = []
    names = _all(paths) if every else (name or _chosen(paths),)
    if not names:
        print("there is no instance to update; `llamamgr install` makes one", file=sys.stderr)
    for one in names:
        try:
            done = update_one(Wish(instance=one, aim=aim, jobs=parallel), paths)
        except LlamamgrError as error:
            if not every:
                raise
            failures.append(error)
            print(f"{one}: {error}", file=sys.stderr)
            continue
        print(done.text)
        if restart and done.has_moved:
            _restart(one, paths)
    if failures:
        raise typer.Exit(failures[0].exit_code)


def update_one(wish: Wish, paths: Paths) -> Done:
    """Update one instance, showing what is going on; exits with 130 when interrupted."""
    from llamamgr.cli.install_progress import building
    from llamamgr.daemon.oracle import self_test
    from llamamgr.instances.store import Store
    from llamamgr.instances.updating import update as perform

    with building(wish.instance) as report:
        done = perform(wish, paths, self_test(paths), report)
    return Done(
        _text(done, Store(paths).instance(wish.instance).spec.source), done.outcome in ("built", "switched")
    )


def _text(done: Updated, source: Source | None) -> str:
    card = done.build.card if done.build else None
    what = f"b{card.number} ({card.commit})" if card else "no build"
    before = f", before it b{done.former.card.number} ({done.former.card.commit})" if done.former else ""
    match done.outcome:
        case "built":
            return f"{done.name}: {what} is current now, {card.verify_note if card else ''}{before}"
        case "switched":
            return f"{done.name}: {what} was here already and is current now{before}"
        case "relinked":
            return f"{done.name}: its programs were replaced; {what} is tested and current now"
        case "pinned":
            return f"{done.name}: pinned, stays at {what}; `llamamgr unpin {done.name}` lets it be updated"
        case "held back" if done.mark:
            return (
                f"{done.name}: stays at {what}; the newest, {done.mark.build}, proved bad: {done.mark.reason.splitlines()[0]}\n"
                f"hint: `llamamgr install --instance {done.name} --reinstall` builds it again"
            )
    fixed = _fixed_to(source)
    if done.outcome == "newest" and fixed:
        other = (
            "--version bNNNN` takes another"
            if source and source.kind != "git"
            else "--branch NAME` follows a branch"
        )
        return f"{done.name}: {what} is what it is fixed to ({fixed}); `llamamgr update {done.name} {other}"
    return f"{done.name}: {what} is the newest already"


def _fixed_to(source: Source | None) -> str:
    """The tag, commit or version that the instance takes; "" where an update may bring another."""
    kind, ref = (source.kind, source.ref) if source else ("", "")
    if ref.startswith("refs/tags/"):
        return f"tag {ref.removeprefix('refs/tags/')}"
    if kind == "git":
        return f"commit {ref}" if re.fullmatch(r"[0-9a-f]{4,40}", ref) else ""
    return f"version {ref}" if ref else ""


def _all(paths: Paths) -> tuple[str, ...]:
    from llamamgr.instances.store import Store

    return tuple(instance.spec.name for instance in Store(paths).instances()[0])


def _chosen(paths: Paths) -> str:
    from llamamgr.cli.chosen import chosen_instance

    return chosen_instance(paths).name


def _restart(name: str, paths: Paths) -> None:
    """Unload the models that run on other builds of the instance than the current one."""
    from llamamgr.cli.chosen import running_children
    from llamamgr.daemon.client import Control
    from llamamgr.instances.store import Store

    current = Store(paths).current(name).key
    for child in running_children(paths):
        if child["build"].partition("/")[0] == name and child["build"] != current:
            model = child["model"]["name"]
            Control(paths).call("POST", "/control/stop-model", {"model": model})
            print(f"{model} is unloaded; it starts from {current} next time")
