"""``llamamgr exec``, and its short form ``llamamgr llama-…``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from llamamgr.core.cards import Build

context_settings = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}


def execute(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The instance.")],
    tool: Annotated[
        str, typer.Argument(metavar="TOOL", help="Such as llama-bench; what follows is the tool's own.")
    ] = "",
) -> None:
    """Run a tool of an instance: llama-bench, llama-perplexity, llama-gguf-split … This process becomes the tool.

    Without a tool, lists those that the instance has. `llamamgr llama-bench …` is short for the instance that commands use.
    """
    build = _named(name)
    # `exec NAME -- TOOL` is what habit types
    words = list(ctx.args) if tool in ("", "--") else [tool, *ctx.args]
    if not words:
        print("\n".join(tools_of(build)))
        return
    become(build, words[0], words[1:])


execute.context_settings = context_settings  # type: ignore[attr-defined]


def short_form(tool: str, arguments: list[str]) -> NoReturn:
    """``llamamgr llama-bench …``: the tool of the instance that commands use."""
    become(_build(""), tool, arguments)


def become(build: Build, tool: str, arguments: list[str]) -> NoReturn:
    """Replace this process by a tool of ``build``; ``NotFoundError`` lists those that it has."""
    from llamamgr.core.errors import NotFoundError
    from llamamgr.host.processes import scrubbed_environment

    there = tools_of(build)
    wanted = tool if tool in there else f"llama-{tool}"
    if wanted not in there:
        raise NotFoundError(
            f"build {build.card.id} of instance {build.card.instance!r} has no tool {tool!r}",
            f"it has: {', '.join(there) or 'none'}",
        )
    sys.stdout.flush()
    os.execve(build.tool(wanted), [wanted, *arguments], scrubbed_environment(dict(build.card.environment)))  # noqa: S606


def tools_of(build: Build) -> tuple[str, ...]:
    """The programs of a build, as they lie there now."""
    from llamamgr.instances.verify import tools_in

    return tools_in(Path(build.root))


def _named(name: str) -> Build:
    """The build of the instance ``name``; where that reads like a tool, the error tells how tools are run without a name."""
    from llamamgr.core.errors import NotFoundError

    try:
        return _build(name)
    except NotFoundError as error:
        if not name.startswith("llama-"):
            raise
        raise NotFoundError(
            error.what, f"{error.hint}; `llamamgr {name} …` runs that of the one in use"
        ) from None


def _build(name: str) -> Build:
    from llamamgr.cli.engine import ready_engine
    from llamamgr.host.paths import Paths

    return ready_engine(Paths.of_environment(), name)
