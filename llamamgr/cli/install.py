"""``llamamgr install``."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from llamamgr.cli.options import taking

if TYPE_CHECKING:
    from llamamgr.host.paths import Paths
    from llamamgr.instances.install import Installed
    from llamamgr.instances.wishes import Wish


class Asked(msgspec.Struct, frozen=True):
    """What ``install`` was asked for."""

    instance: Annotated[
        str,
        typer.Option(
            "--instance",
            "-i",
            metavar="NAME",
            help="The instance to make or change. [LLAMAMGR_INSTANCE, `instance` in config.toml, else default]",
        ),
    ] = ""
    arch: Annotated[
        str,
        typer.Option(metavar="ARCH", help="auto, or one that `llamamgr recipes` lists. [new instance: auto]"),
    ] = ""
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="git:URL[@ref], a URL, @ref, dir:PATH or package[:NAME][@VERSION]. "
            "[new instance: the official repository, else package]",
        ),
    ] = None
    repo_url: Annotated[
        str | None,
        typer.Option("--repo-url", "-r", metavar="URL", help="A git repository: a fork, a mirror."),
    ] = None
    branch: Annotated[str | None, typer.Option("--branch", "-b", help="Follow this branch.")] = None
    tag: Annotated[str | None, typer.Option(help="Take this tag.")] = None
    commit: Annotated[str | None, typer.Option(metavar="HASH", help="Take this commit.")] = None
    version: Annotated[
        str | None,
        typer.Option(metavar="bNNNN", help="Take this version, whatever the source."),
    ] = None
    prebuilt: Annotated[
        bool, typer.Option("--prebuilt", help="Take an official release archive; build nothing.")
    ] = False
    release_index: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where releases are listed. [LLAMAMGR_RELEASES, else the official index]"
        ),
    ] = None
    parallel: Annotated[
        int, typer.Option("--parallel", "-j", min=0, help="Compilers at once. [as CPUs and memory allow]")
    ] = 0
    cmake_args: Annotated[
        list[str] | None,
        typer.Option(
            "--cmake-args",
            "-c",
            metavar="ARGS",
            help="Further arguments for CMake, such as '-DGGML_BLAS=ON -DX=1'; over those the instance has. '' clears them.",
        ),
    ] = None
    gpu_targets: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="GPU generations to build for: 86;89, gfx1100. '' = what is in the machine again.",
        ),
    ] = None
    rpc: Annotated[bool | None, typer.Option("--rpc/--no-rpc", help="Build the RPC server too.")] = None
    pull_only: Annotated[bool, typer.Option("--pull-only", help="Fetch the source and stop there.")] = False
    update_only: Annotated[
        bool, typer.Option("--update-only", help="Update an instance that is there; never make one.")
    ] = False
    ignore_python: Annotated[
        bool | None,
        typer.Option(
            "--ignore-python/--with-python", help="Nobody will convert models with it: look for no Python."
        ),
    ] = None
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Let the self-test decide whether the build becomes current."
        ),
    ] = True
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Build again, from the newest that the source has.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False


@taking(Asked)
def install(asked: Asked) -> None:
    """Get, build, verify and publish llama.cpp as an instance.

    What is not said stays as the instance has it. Nothing is done when the current build already is what is wanted. A build that
    fails, or gives wrong answers, never becomes current.
    """
    from llamamgr.cli.update import update_one
    from llamamgr.host.paths import Paths

    _refuse_contradictions(asked)
    paths = Paths.of_environment()
    wish = _wish(asked, _instance(asked, paths))
    if asked.dry_run:
        _print_plan(wish, paths, asked.pull_only)
    elif asked.pull_only:
        _pull(wish, paths)
    elif asked.update_only:
        print(update_one(wish, paths).text)
    else:
        _install(wish, paths)


def _refuse_contradictions(asked: Asked) -> None:
    """What would be passed over in silence is refused."""
    from llamamgr.core.errors import UsageError

    if asked.pull_only and asked.update_only:
        raise UsageError("--pull-only and --update-only exclude each other", "leave one of them out")
    of_builds = {
        "--cmake-args": asked.cmake_args,
        "--gpu-targets": asked.gpu_targets,
        "--rpc": asked.rpc,
        "--pull-only": asked.pull_only,
    }
    wrong = [option for option, value in of_builds.items() if value and asked.prebuilt]
    if wrong:
        raise UsageError(
            f"{' and '.join(wrong)} is for builds, and --prebuilt builds nothing",
            "leave it out, or build: leave --prebuilt out",
        )


def _instance(asked: Asked, paths: Paths) -> str:
    """By the rules of all commands; but the only one that has a build stands in for no other when one is to be made."""
    from llamamgr.cli.chosen import chosen_instance
    from llamamgr.host.settings import instance_settings
    from llamamgr.instances.choice import chosen

    if asked.update_only:
        return chosen_instance(paths, asked.instance).name
    environment, configured = ("", "") if asked.instance else instance_settings(paths)
    return chosen(asked.instance, environment, configured=configured).name


def _wish(asked: Asked, instance: str) -> Wish:
    from llamamgr.cli.sources import aim_of, cmake_words, source_of
    from llamamgr.instances.wishes import Wish

    return Wish(
        instance=instance,
        arch=asked.arch,
        source=source_of(asked.source, asked.repo_url, asked.prebuilt, asked.release_index),
        cmake_args=cmake_words(asked.cmake_args),
        gpu_targets=asked.gpu_targets,
        rpc=asked.rpc,
        jobs=asked.parallel,
        reinstall=asked.reinstall,
        aim=aim_of(asked.branch, asked.tag, asked.commit, asked.version),
        fresh=asked.update_only,
        verify=asked.verify,
        ignore_python=asked.ignore_python,
    )


def _install(wish: Wish, paths: Paths) -> None:
    from llamamgr.cli.install_progress import building
    from llamamgr.daemon.oracle import self_test
    from llamamgr.instances.install import install as perform

    began = time.monotonic()
    with building(wish.instance) as report:
        installed = perform(wish, paths, self_test(paths), report)
    _print_outcome(installed, time.monotonic() - began)


def _pull(wish: Wish, paths: Paths) -> None:
    from llamamgr.cli.install_progress import reporting
    from llamamgr.host.git import received
    from llamamgr.instances.build import Progress
    from llamamgr.instances.sources import described
    from llamamgr.instances.updating import pull

    with reporting() as report:
        report(Progress("source"))
        found = pull(
            wish,
            paths,
            lambda line: report(Progress("note", line)),
            lambda line: report(Progress("source", line, *received(line))),
        )
    print(f"llama.cpp b{found.number} ({found.commit}) is here, from {described(found.source)}")
    print(f"build it: {_without_pull_only(sys.argv[1:])}")


def _without_pull_only(typed: list[str]) -> str:
    """The same command with all its wishes, but for the one that keeps it from building."""
    from llamamgr.host.git import without_login

    return shlex.join(["llamamgr", *(without_login(word) for word in typed if word != "--pull-only")])


def _print_plan(wish: Wish, paths: Paths, pull_only: bool) -> None:
    from llamamgr.instances.planned import planned

    sections = planned(wish, paths)
    if pull_only:
        told = ("source", "arch")
        sections = (*(s for s in sections if s[0] in told), ("to do", ("fetch the source, build nothing",)))
    for title, lines in sections:
        for number, line in enumerate(lines or ("none",)):
            print(f"{title if number == 0 else '':<10} {line}")


def _print_outcome(installed: Installed, seconds: float) -> None:
    from llamamgr.cli.output import human_size
    from llamamgr.cli.stage_progress import clock

    card = installed.build.card
    options = f" --instance {card.instance}" if card.instance != "default" else ""
    what = f"{card.instance}: llama.cpp b{card.number} ({card.commit}) for {card.arch}"
    state = "verified" if card.verified else "not verified"
    if not installed.is_new and installed.has_moved:
        print(f"{what} was here already, {state}; it is current now")
        return
    if not installed.is_new:
        print(f"{what} is installed and {state} already")
        if card.source.kind == "linked":
            print(f"it is linked to {card.source.location}, which llamamgr does not build")
            return
        print(f"build it again, from the newest source: llamamgr install{options} --reinstall")
        return
    print(f"{what}, {card.verify_note}, in {clock(seconds)}")
    print(f"it lies in {installed.build.root} ({human_size(card.size)})")
    print('next: llamamgr run selftest "hello"')
