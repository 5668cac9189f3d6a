"""``llamamgr run``: one prompt, or a session."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from llamamgr.daemon.private import LlamaServer

# History → the events of the next answer, as ``/api/chat`` has them.
Ask: TypeAlias = Callable[[list[dict[str, Any]]], Iterator[dict[str, Any]]]

_HELP = "/bye leaves, /clear forgets the conversation, /? shows this"


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
    text = _prompt_text(prompt)
    chat = Chat(
        [{"role": "system", "content": system}] if system else [], shows_thinking=bool(think), verbose=verbose
    )
    if not private:
        model, private = _known_by_name(model)
    if private:
        _run_private(chat, model, text, think, keep_alive)
    else:
        _run_on_daemon(chat, model, text, think, keep_alive)


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


def _run_on_daemon(chat: Chat, model: str, text: str | None, think: bool | None, keep_alive: str) -> None:
    from llamamgr.cli.engine import ready_engine
    from llamamgr.daemon.client import Control
    from llamamgr.daemon.spawn import ensure_daemon
    from llamamgr.host.paths import Paths

    base: dict[str, Any] = {"model": model}
    if keep_alive:
        base["keep_alive"] = keep_alive
    if think is not None:
        base["think"] = think
    paths = Paths.of_environment()
    if sys.stdin.isatty() and Control(paths).ping() is None:
        ready_engine(paths, model=model)  # where there is none, a person is asked before anything starts
    control = ensure_daemon(paths)
    if text is None:
        control.call("POST", "/api/generate", base, timeout=None)
    chat.run(lambda history: control.lines("/api/chat", {**base, "messages": history}), text)


def _run_private(chat: Chat, model: str, text: str | None, think: bool | None, keep_alive: str) -> None:
    from llamamgr.core.errors import UsageError
    from llamamgr.daemon.private import LlamaServer
    from llamamgr.host.processes import terminate_as_interrupt

    if keep_alive:
        hint = "the model goes when this command ends; one of a folder in models_dirs stays with the daemon"
        raise UsageError("--keepalive means nothing to a server of the command's own", hint)
    with terminate_as_interrupt(), LlamaServer(model) as server:
        if text is None:
            server.start()
        chat.run(lambda history: _private_events(server, history, think), text)


def _private_events(
    server: LlamaServer, history: list[dict[str, Any]], think: bool | None
) -> Iterator[dict[str, Any]]:
    """As the daemon would tell them, so that one chat shows both."""
    import time

    from llamamgr.wire.neutral import TextDelta, ThinkingDelta

    began = time.perf_counter_ns()
    server.start()
    loaded = time.perf_counter_ns()
    answer = server.stream(history, **({} if think is None else {"think": think}))
    for event in answer.events():
        if isinstance(event, TextDelta):
            yield {"message": {"content": event.text}}
        elif isinstance(event, ThinkingDelta):
            yield {"message": {"thinking": event.text}}
    usage, timings = answer.reply.usage, answer.reply.timings
    yield {
        "load_duration": loaded - began,
        "total_duration": time.perf_counter_ns() - began,
        "prompt_eval_count": usage.prompt,
        "eval_count": usage.completion,
        "eval_duration": int(timings.predicted_ms * 1e6),
    }


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


class Chat:
    """A conversation on the terminal: what was said, and how it is shown."""

    def __init__(self, history: list[dict[str, Any]], *, shows_thinking: bool, verbose: bool) -> None:
        self._history = history
        self._shows_thinking = shows_thinking
        self._verbose = verbose

    def run(self, ask: Ask, text: str | None) -> None:
        """Answer ``text``, or all that is typed when there is none."""
        if text is None:
            self._session(ask)
        else:
            self._turn(ask, text)

    def _session(self, ask: Ask) -> None:
        kept = len(self._history)
        for line in _typed_lines():
            match line.strip():
                case "":
                    continue
                case "/bye" | "/exit" | "/quit":
                    return
                case "/clear":
                    del self._history[kept:]
                    print("the conversation is forgotten")
                case "/?" | "/help":
                    print(_HELP)
                case text if text.startswith("/"):
                    print(f"unknown command {text.split()[0]}; {_HELP}")
                case _:
                    self._turn_of_session(ask, line)

    def _turn_of_session(self, ask: Ask, line: str) -> None:
        """Ctrl-C ends the answer and an error the turn; the session goes on."""
        from llamamgr.core.errors import LlamamgrError

        try:
            self._turn(ask, line)
        except KeyboardInterrupt:
            print()
        except LlamamgrError as error:
            print(f"error: {error}", file=sys.stderr)

    def _turn(self, ask: Ask, text: str) -> None:
        self._history.append({"role": "user", "content": text})
        answer: list[str] = []
        calls: list[Any] = []
        event: dict[str, Any] = {}
        for event in ask(self._history):
            message = event.get("message", {})
            if message.get("thinking") and (sys.stderr.isatty() or self._shows_thinking):
                print(message["thinking"], end="", flush=True, file=sys.stderr)
            print(message.get("content", ""), end="", flush=True)
            answer.append(message.get("content", ""))
            calls += message.get("tool_calls", [])
        print()
        self._history.append(
            {"role": "assistant", "content": "".join(answer), **({"tool_calls": calls} if calls else {})}
        )
        if self._verbose:
            _print_timings(event)


def _typed_lines() -> Iterator[str]:
    import readline  # noqa: F401 - gives input() editing and history

    while True:
        try:
            yield input(">>> ")
        except EOFError:
            print()
            return


def _print_timings(event: dict[str, Any]) -> None:
    seconds = event.get("eval_duration", 0) / 1e9
    rate = f" ({event.get('eval_count', 0) / seconds:.1f} tokens/s)" if seconds else ""
    print(
        f"load {event.get('load_duration', 0) / 1e9:.3f} s, prompt {event.get('prompt_eval_count', 0)} tokens, "
        f"answer {event.get('eval_count', 0)} tokens{rate}, total {event.get('total_duration', 0) / 1e9:.3f} s",
        file=sys.stderr,
    )
