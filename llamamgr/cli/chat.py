"""A conversation on the terminal: what was said, what holds for its answers, and how they are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

Message = dict[str, Any]


class Wishes(msgspec.Struct):
    """What a person wants of the answers; changed by ``/set``. ``options`` are Ollama's, ``format`` is "" or ``json``."""

    system: str = ""
    think: bool | str | None = None
    options: dict[str, Any] = {}
    format: str = ""
    verbose: bool = False


class Partner(Protocol):
    """Who answers: the daemon, or a server of the command's own."""

    model: str

    def load(self, model: str) -> None:
        """Have ``model`` ready and talk to it from now on; when that fails the one before stays."""
        ...

    def answer(self, messages: list[Message], wishes: Wishes) -> Iterator[dict[str, Any]]:
        """The events of the next answer, as ``/api/chat`` has them. ``messages`` begin with the system's, where there is one."""
        ...

    def save(self, name: str, messages: list[Message], wishes: Wishes) -> None:
        """Make a model ``name`` of this one, with what was wished and said."""
        ...


class Chat:
    """``said`` are the turns so far, without the system's; a turn without an answer is not among them."""

    def __init__(self, partner: Partner, wishes: Wishes) -> None:
        self.partner = partner
        self.wishes = wishes
        self.said: list[Message] = []

    def turn(self, text: str) -> None:
        """Ask ``text`` and show the answer. One that is interrupted is remembered as far as it came."""
        question = {"role": "user", "content": text}
        heard = _Heard(bool(self.wishes.think) or sys.stderr.isatty())
        system = [{"role": "system", "content": self.wishes.system}] if self.wishes.system else []
        try:
            for event in self.partner.answer([*system, *self.said, question], self.wishes):
                heard.take(event)
        finally:
            if answer := heard.message():
                print()
                self.said += [question, answer]
        if self.wishes.verbose:
            _print_timings(heard.last)


class _Heard:
    """An answer as it comes."""

    def __init__(self, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._text: list[str] = []
        self._calls: list[Any] = []
        self.last: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> None:
        self.last = event
        message = event.get("message", {})
        if message.get("thinking") and self._shows_thinking:
            print(message["thinking"], end="", flush=True, file=sys.stderr)
        text = message.get("content", "")
        print(text, end="", flush=True)
        self._text.append(text)
        self._calls += message.get("tool_calls", [])

    def message(self) -> Message | None:
        """What is to be remembered of it; None when nothing came."""
        if not self.last:
            return None
        calls = {"tool_calls": self._calls} if self._calls else {}
        return {"role": "assistant", "content": "".join(self._text), **calls}


def _print_timings(event: dict[str, Any]) -> None:
    seconds = event.get("eval_duration", 0) / 1e9
    rate = f" ({event.get('eval_count', 0) / seconds:.1f} tokens/s)" if seconds else ""
    print(
        f"load {event.get('load_duration', 0) / 1e9:.3f} s, prompt {event.get('prompt_eval_count', 0)} tokens, "
        f"answer {event.get('eval_count', 0)} tokens{rate}, total {event.get('total_duration', 0) / 1e9:.3f} s",
        file=sys.stderr,
    )
