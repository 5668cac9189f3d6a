"""``llamamgr run``: one prompt, or a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llamamgr.daemon.client import Control

_HELP = "/bye leaves, /clear forgets the conversation, /? shows this"


def run(
    model: Annotated[str, typer.Argument(help="A model of `llamamgr list`.")],
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
) -> None:
    """Chat with a model, streaming. Without a prompt on a terminal: a session with history. Starts the daemon if needed."""
    from llamamgr.daemon.spawn import ensure_daemon
    from llamamgr.host.paths import Paths

    text = _prompt_text(prompt)
    base: dict[str, Any] = {"model": model}
    if keep_alive:
        base["keep_alive"] = keep_alive
    if think is not None:
        base["think"] = think
    history: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    control = ensure_daemon(Paths.of_environment())
    if text is not None:
        _turn(control, base, history, text, verbose)
        return
    _session(control, base, history, verbose)


def _prompt_text(prompt: list[str] | None) -> str | None:
    """The prompt given, with what is piped in after it; None when a session is wanted."""
    words = " ".join(prompt or [])
    if words in ("", "-") and (words == "-" or not sys.stdin.isatty()):
        return sys.stdin.read()
    return words or None


def _session(control: Control, base: dict[str, Any], history: list[dict[str, Any]], verbose: bool) -> None:
    control.call("POST", "/api/generate", base, timeout=None)
    kept = len(history)
    for line in _typed_lines():
        match line.strip():
            case "":
                continue
            case "/bye" | "/exit" | "/quit":
                return
            case "/clear":
                del history[kept:]
                print("the conversation is forgotten")
            case "/?" | "/help":
                print(_HELP)
            case text if text.startswith("/"):
                print(f"unknown command {text.split()[0]}; {_HELP}")
            case _:
                _turn(control, base, history, line, verbose)


def _typed_lines() -> Iterator[str]:
    import readline  # noqa: F401 - gives input() editing and history

    while True:
        try:
            yield input(">>> ")
        except EOFError:
            print()
            return


def _turn(
    control: Control, base: dict[str, Any], history: list[dict[str, Any]], text: str, verbose: bool
) -> None:
    history.append({"role": "user", "content": text})
    answer: list[str] = []
    calls: list[Any] = []
    event: dict[str, Any] = {}
    for event in control.lines("/api/chat", {**base, "messages": history}):
        message = event.get("message", {})
        if message.get("thinking") and (sys.stderr.isatty() or base.get("think")):
            print(message["thinking"], end="", flush=True, file=sys.stderr)
        print(message.get("content", ""), end="", flush=True)
        answer.append(message.get("content", ""))
        calls += message.get("tool_calls", [])
    print()
    history.append(
        {"role": "assistant", "content": "".join(answer), **({"tool_calls": calls} if calls else {})}
    )
    if verbose:
        _print_timings(event)


def _print_timings(event: dict[str, Any]) -> None:
    seconds = event.get("eval_duration", 0) / 1e9
    rate = f" ({event.get('eval_count', 0) / seconds:.1f} tokens/s)" if seconds else ""
    print(
        f"load {event.get('load_duration', 0) / 1e9:.3f} s, prompt {event.get('prompt_eval_count', 0)} tokens, "
        f"answer {event.get('eval_count', 0)} tokens{rate}, total {event.get('total_duration', 0) / 1e9:.3f} s",
        file=sys.stderr,
    )
