"""``llamamgr install``."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.host.paths import Paths
    from llamamgr.instances.install import Installed
    from llamamgr.instances.verify import SelfTest

_INTERRUPTED = 130  # as shells count a SIGINT
_QUESTION = "How are the llamas?"


def install(
    instance: Annotated[
        str, typer.Option("--instance", "-i", metavar="NAME", help="The instance to make or change.")
    ] = "default",
    arch: Annotated[
        str,
        typer.Option(
            metavar="ARCH",
            help="auto, cpu, cuda, rocm, vulkan, metal or a recipe of yours. [new instance: auto]",
        ),
    ] = "",
    source: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="git:URL[@ref], a URL, @ref, dir:PATH or package[:NAME][@VERSION]. "
            "[new instance: the official repository, else package]",
        ),
    ] = "",
    parallel: Annotated[
        int, typer.Option("--parallel", "-j", min=0, help="Compilers at once. [as CPUs and memory allow]")
    ] = 0,
    cmake_args: Annotated[
        list[str] | None,
        typer.Option(
            "--cmake-args", metavar="ARGS", help="Further arguments for CMake, such as -DGGML_BLAS=ON."
        ),
    ] = None,
    gpu_targets: Annotated[
        str, typer.Option(metavar="LIST", help="GPU generations to build for: 86;89, gfx1100.")
    ] = "",
    rpc: Annotated[bool | None, typer.Option("--rpc/--no-rpc", help="Build the RPC server too.")] = None,
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Build again, from the newest that the source has.")
    ] = False,
) -> None:
    """Get, build, verify and publish llama.cpp as an instance.

    What is not said stays as the instance has it. Nothing is done when the current build already is what is wanted. A build that
    fails, or gives wrong answers, never becomes current.
    """
    from llamamgr.cli.install_progress import reporting
    from llamamgr.core.names import parse_instance_name
    from llamamgr.host.paths import Paths
    from llamamgr.host.processes import terminate_as_interrupt
    from llamamgr.instances.install import Wish
    from llamamgr.instances.install import install as perform
    from llamamgr.instances.sources import parse_source

    began = time.monotonic()
    paths = Paths.of_environment()
    wish = Wish(
        instance=parse_instance_name(instance),
        arch=arch,
        source=parse_source(source),
        cmake_args=None
        if cmake_args is None
        else tuple(word for text in cmake_args for word in shlex.split(text)),
        gpu_targets=gpu_targets,
        rpc=rpc,
        jobs=parallel,
        reinstall=reinstall,
    )
    try:
        with terminate_as_interrupt(), reporting() as report:
            installed = perform(wish, paths, _self_test(paths), report)
    except KeyboardInterrupt:
        print(f"interrupted; instance {wish.instance!r} is as it was", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None
    _print_outcome(installed, time.monotonic() - began)


def _self_test(paths: Paths) -> SelfTest:
    from llamamgr.instances.verify import SelfTest
    from llamamgr.models import selftest

    return SelfTest(str(selftest.ensure(paths.cache / selftest.NAME)), _QUESTION, selftest.ANSWER)


def _print_outcome(installed: Installed, seconds: float) -> None:
    from llamamgr.cli.install_progress import clock
    from llamamgr.cli.output import human_size

    card = installed.build.card
    options = f" --instance {card.instance}" if card.instance != "default" else ""
    if not installed.is_new:
        print(
            f"{card.instance}: llama.cpp b{card.number} ({card.commit}) for {card.arch} is installed and verified already"
        )
        print(f"build it again, from the newest source: llamamgr install{options} --reinstall")
        return
    print(
        f"{card.instance}: llama.cpp b{card.number} ({card.commit}) for {card.arch}, {card.verify_note}, in {clock(seconds)}"
    )
    print(f"it lies in {installed.build.root} ({human_size(card.size)})")
    print('next: llamamgr run selftest "hello"')
