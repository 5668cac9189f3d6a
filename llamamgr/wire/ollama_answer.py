"""Ollama's answers: neutral events → NDJSON lines, or one JSON object that is their concatenation.

Key order is that of Ollama's Go structs, absent means zero (``omitempty``), durations are integer
nanoseconds, and ``<``, ``>`` and ``&`` are escaped. Facts: Ollama api/types.go ``ChatResponse``,
``GenerateResponse``, ``Metrics``, ``Logprob``, and recorded answers: tool calls ride on the last line,
whose ``done_reason`` stays ``stop``; those of a Go template have a line of their own before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.neutral import (
    Alternative,
    Event,
    Failed,
    Finished,
    Logprob,
    PromptRead,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)

Kind: TypeAlias = Literal["generate", "chat"]


def error_body(message: str) -> bytes:
    """The body of any native error."""
    return golang.encode({"error": message})


def load_answer(kind: Kind, model: str, created_at: str, *, unload: bool = False) -> bytes:
    """The answer to an empty prompt, the same with and without ``stream``."""
    done = {"done": True, "done_reason": "unload" if unload else "load"}
    return golang.encode({"model": model, "created_at": created_at, **_said(kind, "", "", ()), **done})


def prompt_answer(kind: Kind, model: str, created_at: str, prompt: str, images: int) -> bytes:
    """The answer to a request that asks for its prompt, the same with and without ``stream``."""
    said = {"response": ""} if kind == "generate" else {"message": {"role": "", "content": ""}}
    info = {"rendered_template": prompt, **({"image_count": images} if images else {})}
    answer = {"model": model, "created_at": created_at, **said, "done": False, "_debug_info": info}
    return golang.encode(answer)


class Renderer:
    """Renders one answer.

    Feed every event to ``event``; for a stream it returns lines, else nothing until ``whole``. ``model``
    is the name as the client asked for it; ``now`` gives the time as RFC 3339 with nanoseconds,
    ``elapsed`` the nanoseconds since the request came. Set ``load_duration`` (ns) and ``context`` (token
    ids, generate only) before the last event. ``call_id`` makes the ids of calls that were read out of text here.
    """

    def __init__(
        self,
        kind: Kind,
        model: str,
        *,
        stream: bool,
        now: Callable[[], str],
        elapsed: Callable[[], int] = lambda: 0,
        call_id: Callable[[], str] | None = None,
    ) -> None:
        self.load_duration = 0
        self.context: Sequence[int] = ()
        self.failure: Failed | None = None
        self._kind: Kind = kind
        self._model = model
        self._stream = stream
        self._now = now
        self._elapsed = elapsed
        self._call_id = call_id
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._logprobs: list[Logprob] = []
        self._calls: dict[int, _Call] = {}
        self._finished: Finished | None = None
        self._before = b'{"model":' + golang.encode(model) + b',"created_at":"'
        self._between = b'","message":{"role":"assistant","content":' if kind == "chat" else b'","response":'
        self._after = b'},"done":false' if kind == "chat" else b',"done":false'

    @property
    def text(self) -> str:
        """What has been answered so far without a stream, without thinking."""
        return "".join(self._text)

    def event(self, event: Event) -> bytes:
        """The line that this event makes, empty when it makes none."""
        match event:
            case TextDelta(text=text, logprobs=logprobs):
                if not self._stream:
                    self._text.append(text)
                return self._line(text, "", logprobs)
            case ThinkingDelta(text=text, logprobs=logprobs):
                if not self._stream:
                    self._thinking.append(text)
                return self._line("", text, logprobs)
            case PromptRead():
                return b""
            case ToolCallDelta():
                self._calls.setdefault(event.index, _Call()).add(event)
                return b""
            case Finished():
                self._finished = event
                if not self._stream:
                    return b""
                return self._line_of_calls() + self._last(event, "", "", ()) + b"\n"
            case Failed():
                self.failure = event
                return self.failed(event) if self._stream else b""

    def events(self, events: Sequence[Event]) -> bytes:
        """The lines that these events make; those that came with one read have one time."""
        plain = 0
        if self._stream and len(events) > 1:
            plain = next((at for at, one in enumerate(events) if not _is_plain(one)), len(events))
        told = (
            self._lines([one.text for one in events[:plain] if isinstance(one, TextDelta)]) if plain else b""
        )
        return told + b"".join([self.event(one) for one in events[plain:]])

    def _lines(self, texts: list[str]) -> bytes:
        start = self._before + self._now().encode() + self._between
        end = self._after + b"}\n"
        encode = msgspec.json.encode if golang.is_plain("".join(texts)) else golang.encode
        return start + (end + start).join([encode(text) for text in texts]) + end

    def whole(self) -> bytes:
        """The answer of a request without ``stream``, once ``Finished`` has come."""
        if self._finished is None:
            raise ValueError("the answer is not finished")
        return self._last(self._finished, self.text, "".join(self._thinking), self._logprobs)

    def failed(self, failed: Failed) -> bytes:
        """The last line of a stream that fails after its first byte."""
        return error_body(failed.message) + b"\n"

    def _line(self, text: str, thinking: str, logprobs: Sequence[Logprob]) -> bytes:
        if not self._stream:
            self._logprobs += logprobs
            return b""
        line = self._before + self._now().encode() + self._between + golang.encode(text)
        if thinking:
            line += b',"thinking":' + golang.encode(thinking)
        line += self._after
        if logprobs:
            line += b',"logprobs":' + golang.encode(_logprobs(logprobs))
        return line + b"}\n"

    def _line_of_calls(self) -> bytes:
        """The calls that were read here, told before the last line."""
        if self._call_id is None or not (calls := self._complete_calls()):
            return b""
        self._calls.clear()
        told = {"model": self._model, "created_at": self._now(), **_said(self._kind, "", "", calls)}
        return golang.encode({**told, "done": False}) + b"\n"

    def _complete_calls(self) -> list[dict[str, object]]:
        calls = [one.complete(self._call_id) for _, one in sorted(self._calls.items())]
        return [call for call in calls if call is not None]

    def _last(self, finished: Finished, text: str, thinking: str, logprobs: Sequence[Logprob]) -> bytes:
        calls = self._complete_calls()
        reason = "length" if finished.reason == "length" else "stop"
        shown = {"logprobs": _logprobs(logprobs)} if logprobs else {}
        metrics = self._metrics(finished)
        answer = {
            "model": self._model,
            "created_at": self._now(),
            **_said(self._kind, text, thinking, calls),
            "done": True,
            "done_reason": reason,
        }
        if self._kind == "chat":
            return golang.encode({**answer, **shown, **metrics})
        context = {"context": list(self.context)} if self.context else {}
        return golang.encode({**answer, **context, **metrics, **shown})

    def _metrics(self, finished: Finished) -> dict[str, int]:
        usage, timings = finished.usage, finished.timings
        metrics = {
            "total_duration": self._elapsed(),
            "load_duration": self.load_duration,
            "prompt_eval_count": usage.prompt,
            "prompt_eval_duration": round(timings.prompt_ms * 1e6),
            "eval_count": usage.completion,
            "eval_duration": round(timings.predicted_ms * 1e6),
        }
        return {name: value for name, value in metrics.items() if value}


def _is_plain(event: Event) -> bool:
    return isinstance(event, TextDelta) and not event.logprobs


class _Call:
    """A tool call while its pieces come in."""

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._index = 0
        self._arguments: list[str] = []

    def add(self, delta: ToolCallDelta) -> None:
        self._id = self._id or delta.id
        self._name = self._name or delta.name
        self._index = delta.index
        self._arguments.append(delta.arguments)

    def complete(self, call_id: Callable[[], str] | None) -> dict[str, object] | None:
        """Ollama's form, arguments an object; None for one that was cut off, which must not be made."""
        try:
            arguments = msgspec.json.decode("".join(self._arguments) or "{}", type=dict[str, object])
        except (msgspec.DecodeError, RecursionError):
            return None
        function = {"index": self._index, "name": self._name, "arguments": arguments}
        if call_id is not None:
            self._id = self._id or call_id()
        return {"id": self._id, "function": function} if self._id else {"function": function}


def _said(kind: Kind, text: str, thinking: str, calls: Sequence[dict[str, object]]) -> dict[str, object]:
    thought = {"thinking": thinking} if thinking else {}
    called = {"tool_calls": calls} if calls else {}
    if kind == "generate":
        return {"response": text, **thought, **called}
    return {"message": {"role": "assistant", "content": text, **thought, **called}}


def _logprobs(logprobs: Iterable[Logprob]) -> list[dict[str, object]]:
    return [
        {**_token(one), **({"top_logprobs": [_token(top) for top in one.top]} if one.top else {})}
        for one in logprobs
    ]


def _token(one: Logprob | Alternative) -> dict[str, object]:
    shown: dict[str, object] = {"token": one.token, "logprob": golang.number(one.logprob)}
    return {**shown, "bytes": one.bytes} if one.bytes else shown
