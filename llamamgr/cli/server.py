"""``llamamgr server``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

context_settings = {"allow_extra_args": True, "ignore_unknown_options": True}


def server(
    ctx: typer.Context,
    instance: Annotated[str, typer.Option("--instance", help="The instance whose llama-server runs.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="A model of `llamamgr list`, or a path.")] = "",
) -> None:
    """Run one llama-server in the foreground with any of its own flags (after --). Without a model it serves `selftest`.

    This process becomes llama-server: signals, exit code and output are its own. The daemon is not involved.
    """
    from llamamgr.cli.engine import ready_engine
    from llamamgr.core.flags import write_argv
    from llamamgr.host.paths import Paths
    from llamamgr.host.processes import scrubbed_environment
    from llamamgr.host.settings import load_config
    from llamamgr.models.index import Index

    paths = Paths.of_environment()
    config = load_config(paths)
    extra = [argument for argument in ctx.args if argument != "--"]
    card = None if _brings_model(extra, model) else Index(paths, config).resolve(model or "selftest")
    build = ready_engine(paths, instance, card.name if card else "")
    settings: dict[str, str | int | bool] = {"ui": "off", "offline": card is not None}
    if card is not None:
        settings |= {"model": card.path, "alias": card.name, "projector": card.projector}
    elif model:
        settings |= {"model": model}
    flags = build.card.capability.flags if build.card.capability else {}
    argv, _ = write_argv(settings, flags)
    defaults = [] if _names_port(extra) else ["--port", "8080"]
    command = [build.tool("llama-server"), *argv, *defaults, *extra]
    os.execve(command[0], command, scrubbed_environment(dict(build.card.environment)))  # noqa: S606 - no shell is the point


server.context_settings = context_settings  # type: ignore[attr-defined]


def _brings_model(extra: list[str], model: str) -> bool:
    """The user's own flags choose the model, or ``model`` is a file."""
    own = {
        "-m",
        "-hf",
        "-hfr",
        "--hf-repo",
        "-mu",
        "--model-url",
        "--models-dir",
        "--models-preset",
        "-dr",
        "--docker-repo",
    }
    return any(argument in own for argument in extra) or (bool(model) and Path(model).is_file())


def _names_port(extra: list[str]) -> bool:
    return "--port" in extra or any(argument.endswith(".sock") for argument in extra)
