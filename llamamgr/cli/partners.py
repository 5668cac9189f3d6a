"""Who answers a chat on the terminal: the daemon, or a server of the command's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llamamgr.cli.chat import Message, Wishes

if TYPE_CHECKING:
    from llamamgr.daemon.client import Control
    from llamamgr.daemon.private import LlamaServer


class OnDaemon:
    """``keep_alive`` as ``/api/chat`` has it, "" for the model's own."""

    def __init__(self, control: Control, model: str, keep_alive: str) -> None:
        self.model = model
        self._control = control
        self._keep_alive = {"keep_alive": keep_alive} if keep_alive else {}

    def load(self, model: str) -> None:
        self._control.call("POST", "/api/generate", {"model": model, **self._keep_alive}, timeout=None)
        self.model = model

    def answer(self, messages: list[Message], wishes: Wishes) -> Iterator[dict[str, Any]]:
        body: dict[str, Any] = {"model": self.model, **self._keep_alive, "messages": messages}
        body |= {} if wishes.think is None else {"think": wishes.think}
        body |= {"options": wishes.options} if wishes.options else {}
        body |= {"format": wishes.format} if wishes.format else {}
        return self._control.lines("/api/chat", body)

    def save(self, name: str, messages: list[Message], wishes: Wishes) -> None:
        body: dict[str, Any] = {"model": name, "from": self.model, "stream": False}
        body |= {"system": wishes.system} if wishes.system else {}
        body |= {"parameters": wishes.options} if wishes.options else {}
        body |= {"messages": messages} if messages else {}
        self._control.call("POST", "/api/create", body, timeout=None)


class Private:
    """A server that began with ``model`` and keeps it."""

    def __init__(self, server: LlamaServer, model: str) -> None:
        self.model = model
        self._server = server

    def load(self, model: str) -> None:
        from llamamgr.core.errors import UsageError

        raise UsageError("a private server keeps its model", f"leave, then `llamamgr run --private {model}`")

    def save(self, name: str, messages: list[Message], wishes: Wishes) -> None:
        from llamamgr.core.errors import UsageError

        raise UsageError(
            "a private server saves nothing", f"`llamamgr run {self.model}` has a session that does"
        )

    def answer(self, messages: list[Message], wishes: Wishes) -> Iterator[dict[str, Any]]:
        """As the daemon would tell it, so that one chat shows both."""
        from llamamgr.wire.neutral import TextDelta, ThinkingDelta

        began = time.perf_counter_ns()
        parameters = _parameters(wishes)
        self._server.start()
        loaded = time.perf_counter_ns()
        answer = self._server.stream(messages, **parameters)
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


def _parameters(wishes: Wishes) -> dict[str, Any]:
    """What is wished, by the names of ``LlamaServer.stream``; ``UsageError`` for options that would need another start."""
    from llamamgr.core.errors import UsageError
    from llamamgr.wire.errors import DialectError
    from llamamgr.wire.ollama_options import LoadWishes, parse_options

    try:
        options = parse_options(wishes.options)
    except DialectError as error:
        raise UsageError(error.message, "/set parameter gives it another value") from None
    if options.load != LoadWishes():
        raise UsageError(
            "a private server is loaded already",
            "num_ctx and its like are for `llamamgr run` without --private",
        )
    parameters = dict(options.sampling)
    parameters |= {} if wishes.think is None else {"think": wishes.think}
    parameters |= {"response_format": {"type": "json_object"}} if wishes.format else {}
    return parameters
