"""``llamamgr run``: one prompt, or a session."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamamgr.cli.chat import Chat, Partner, Wishes


def run(
    model: Annotated[str, typer.Argument(help="A model of `llamamgr list`, or a GGUF file.")],
    prompt: Annotated[
        list[str] | None, typer.Argument(help="The prompt; `-` or a pipe reads it from standard input.")
    ] = None,
    system: Annotated[str, typer.Option("--system", help="System prompt.")] = "",
    keep_alive: Annotated[
        str, typer.Option("--keepalive", help="How long the model stays loaded, such as 5m.")
    ] = "",
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="Think first, or not; the model's own choice by default."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show timings after the answer.")] = False,
    private: Annotated[
        bool,
        typer.Option("--private", help="A llama-server of this command's own; the daemon is not involved."),
    ] = False,
) -> None:
    """Chat with a model, streaming. Without a prompt on a terminal: a session with history. Starts the daemon if needed."""
    from llamamgr.cli.chat import Wishes

    if keep_alive:
        _check_keep_alive(keep_alive)
    text = _prompt_text(prompt)
    wishes = Wishes(system, think, verbose=verbose)
    if not private:
        model, private = _known_by_name(model)
    if private:
        _run_private(model, text, wishes, keep_alive)
    else:
        _run_on_daemon(model, text, wishes, keep_alive)


def _known_by_name(model: str) -> tuple[str, bool]:
    """The name of the model that a path is, and whether it has none, so that only a private server can run it."""
    from llamamgr.core.names import is_path

    if not is_path(model):
        return model, False
    from llamamgr.host.paths import Paths
    from llamamgr.host.settings import load_config
    from llamamgr.models.index import Index
    from llamamgr.models.single import card_of_file

    paths = Paths.of_environment()
    file = os.path.realpath(card_of_file(Path(model)).path)
    listing = Index(paths, load_config(paths)).refresh()
    name = next((card.name for card in listing.models if file in map(os.path.realpath, card.parts)), "")
    if not name:
        note = (
            "no folder of models_dirs holds it, so it runs on a server of this command's own, as by --private"
        )
        print(f"note: {note}", file=sys.stderr)
    return name or model, not name


def _run_on_daemon(model: str, text: str | None, wishes: Wishes, keep_alive: str) -> None:
    from llamamgr.cli.engine import ready_engine
    from llamamgr.cli.partners import OnDaemon
    from llamamgr.core.hub import parse_model_name
    from llamamgr.daemon.client import Control
    from llamamgr.daemon.spawn import ensure_daemon
    from llamamgr.host.paths import Paths

    paths = Paths.of_environment()
    if Control(paths).ping() is None:
        parse_model_name(model)
        ready_engine(
            paths, model=model
        )  # where there is none, this is told, or a person asked, before anything starts
    partner = OnDaemon(ensure_daemon(paths), model, keep_alive)
    if text is None:
        partner.load(model)
    _talk(partner, wishes, text)


def _run_private(model: str, text: str | None, wishes: Wishes, keep_alive: str) -> None:
    from llamamgr.cli.partners import Private
    from llamamgr.core.errors import UsageError
    from llamamgr.daemon.private import LlamaServer
    from llamamgr.host.processes import terminate_as_interrupt

    if keep_alive:
        hint = "the model goes when this command ends; one of a folder in models_dirs stays with the daemon"
        raise UsageError("--keepalive means nothing to a server of the command's own", hint)
    with terminate_as_interrupt(), LlamaServer(model) as server:
        if text is None:
            server.start()
        _talk(Private(server, model), wishes, text)


def _talk(partner: Partner, wishes: Wishes, text: str | None) -> None:
    """Answer ``text``, or all that is typed when there is none."""
    from llamamgr.cli.chat import Chat

    chat = Chat(partner, wishes)
    if text is not None:
        _answer_once(chat, text)
        return
    from llamamgr.cli.session import hold

    hold(chat)


def _answer_once(chat: Chat, text: str) -> None:
    from llamamgr.core.errors import UsageError

    try:
        chat.turn(text)
    except UsageError as error:
        error.hint = error.hint or f"`llamamgr show {chat.partner.model}` tells what it can do"
        raise


def _check_keep_alive(said: str) -> None:
    from llamamgr.core.durations import parse_keep_alive
    from llamamgr.core.errors import UsageError

    try:
        parse_keep_alive(said)
    except ValueError as error:
        raise UsageError(f"--keepalive: {error}", "write 30s, 5m or 1h30m; -1s keeps it for ever") from None


def _prompt_text(prompt: list[str] | None) -> str | None:
    """The prompt, followed by what is piped in; None when a session is wanted. ``-`` reads standard input even from a terminal."""
    from llamamgr.core.errors import UsageError

    words = " ".join(prompt or [])
    piped = sys.stdin.read() if words == "-" or _is_piped(nothing_said=not words) else ""
    if words == "-":
        words = ""
    text = "\n\n".join(part for part in (words, piped.strip()) if part)
    if not text and not sys.stdin.isatty():
        raise UsageError("there is no prompt", "write it behind the model, or pipe it in")
    return text or None


def _is_piped(*, nothing_said: bool) -> bool:
    """Whether standard input holds something to read: a pipe or a file; anything but a terminal when nothing else was said."""
    if sys.stdin.isatty():
        return False
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return nothing_said or stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
