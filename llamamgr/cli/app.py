"""The Typer application, built for one command line: only the command that is meant is imported.

Typer carries its own copy of click, so its groups cannot be made lazy through public names; registering a summary in place of
each command that is not called has the same effect.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from llamamgr import __version__
from llamamgr.core.errors import UsageError

# Typer has its own copy of click and shows only the leaves of its errors
_REFUSED: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
_VALUES = {"str": "TEXT", "int": "N", "int range": "N", "float": "N", "float range": "N", "path": "PATH"}
_HELP = {"help_option_names": ["-h", "--help"]}


def perform(
    table: Mapping[str, tuple[str, str]], aliases: Mapping[str, str], arguments: Sequence[str], program: str
) -> int:
    """Run one command line; its exit code. ``UsageError`` for what the parser refuses, with the help to ask for."""
    command: Any = typer.main.get_command(build(table, aliases, arguments))
    for sub in command.commands.values():
        _name_values(sub)
    try:
        return command.main(list(arguments), prog_name=program, standalone_mode=False) or 0
    except typer.Abort:
        print("aborted", file=sys.stderr)
        return 1
    except _REFUSED as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return int(error.exit_code)
        called = next((word for word in arguments if word in table or word in aliases), "")
        raise _usage_error(error, f"{program} {called}".strip(), (*table, *aliases)) from None


def _usage_error(error: Any, path: str, commands: Sequence[str]) -> UsageError:
    import difflib

    said = " ".join(error.format_message().partition(" (Possible options")[0].split()).rstrip(".")
    what = f"{said[:1].lower()}{said[1:]}".replace("is not a valid int range", "is no whole number")
    near = tuple(getattr(error, "possibilities", None) or ())
    if what.startswith("no such command"):
        what = what.partition(". Did you mean")[0]
        near = tuple(difflib.get_close_matches(what.split("'")[1], commands, n=1))
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return UsageError(what, f"{meant}`{path} -h` tells what there is")


def _name_values(command: Any) -> None:
    """What values are called in usage lines and help: as in manuals, not by the names of Python's types."""
    for parameter in command.params:
        choices = getattr(parameter.type, "choices", None)
        if parameter.param_type_name == "argument":
            text = parameter.metavar or ("|".join(choices) if choices else parameter.name.upper())
            text += "..." if parameter.nargs != 1 and not text.endswith(("...", "…")) else ""
            shown = text if parameter.required or text.startswith("[") else f"[{text}]"
            parameter.make_metavar = lambda ctx, usage=False, whole=shown, bare=text: whole if usage else bare
        elif parameter.metavar is None and not choices:
            parameter.metavar = _VALUES.get(parameter.type.name)


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
