"""The Typer application, built for one command line: only the command that is meant is imported.

Typer carries its own copy of click, so its groups cannot be made lazy through public names; registering a summary in place of
each command that is not called has the same effect.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from llamamgr import __version__

_HELP = {"help_option_names": ["-h", "--help"]}


def build(
    table: Mapping[str, tuple[str, str]], aliases: Mapping[str, str], arguments: Sequence[str]
) -> typer.Typer:
    """The application for ``arguments``: name → (``module:function``, one line of help)."""
    app = typer.Typer(
        rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True, context_settings=_HELP
    )
    app.callback(invoke_without_command=True)(root)
    called = next((argument for argument in arguments if not argument.startswith("-")), "")
    everything = "_LLAMAMGR_COMPLETE" in os.environ  # shell completion needs the real parameters
    for name, (where, summary) in table.items():
        is_called = everything or aliases.get(called, called) == name
        body = _load(where) if is_called else _summary
        settings: dict[str, Any] = {**_HELP, **getattr(body, "context_settings", {})}
        text = (body.__doc__ if is_called else None) or summary
        app.command(name, help=text, short_help=summary, context_settings=settings)(body)
        for alias in (a for a, target in aliases.items() if target == name):
            app.command(alias, help=text, hidden=True, context_settings=settings)(body)
    return app


def root(
    version: bool = typer.Option(False, "--version", "-v", is_eager=True, help="Show the version."),
) -> None:
    """Build, version, supervise and serve your own llama.cpp, with Ollama's ease."""
    if version:
        typer.echo(f"llamamgr {__version__}")
        raise typer.Exit


def _load(where: str) -> Callable[..., None]:
    module, _, function = where.partition(":")
    body: Callable[..., None] = getattr(importlib.import_module(module), function)
    return body


def _summary() -> None:
    """Stands for a command that was not called."""
