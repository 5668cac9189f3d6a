"""llama-server's streams → neutral events.

Shapes and order of chunks are those of llama.cpp b11434, read and recorded; fields that are not named here
are skipped, so newer builds may add more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from llamamgr.wire import neutral, sse
from llamamgr.wire.engine_errors import INCOMPLETE, UNREADABLE, ErrorBody, failure_of, reported, unreadable
from llamamgr.wire.errors import ProtocolError
from llamamgr.wire.neutral import Failed, Finished, Usage
from llamamgr.wire.runs import Runs
from llamamgr.wire.sse import SseParser

_STOP_REASONS: dict[str, neutral.FinishReason] = {
    "limit": "length",
    "length": "length",
    "tool_calls": "tool_calls",
}


class _TopLogprob(msgspec.Struct):
    token: str = ""
    logprob: float | None = None
    bytes: tuple[int, ...] = ()


class _Logprob(_TopLogprob):
    top_logprobs: list[_TopLogprob] = []


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Timings(msgspec.Struct):
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float | None = None
    predicted_n: int = 0
    predicted_ms: float | None = None


class _Counted(msgspec.Struct):
    usage: _Usage | None = None
    timings: _Timings | None = None


_DECODE_COUNTED = msgspec.json.Decoder(_Counted)


class _Progress(msgspec.Struct):
    total: int = 0
    cache: int = 0
    processed: int = 0


class _Verbose(msgspec.Struct):
    stopping_word: str = ""


class _Chunk(msgspec.Struct, rename={"verbose": "__verbose"}):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: ErrorBody | None = None
    prompt_progress: _Progress | None = None
    verbose: _Verbose | None = None


class Completion(msgspec.Struct):
    """A chunk of ``/completion``; its field names are also what is asked of the last one."""

    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    stopping_word: str = ""
    timings: _Timings | None = None
    completion_probabilities: list[_Logprob] = []
    prompt_progress: _Progress | None = None
    error: ErrorBody | None = None


class _Stream(ABC):
    """What both streams share: frames in, events out, and exactly one end, be it good or bad."""

    _has_runs = False

    def __init__(self, top_logprobs: int = 0) -> None:
        self._frames = SseParser()
        self._runs = Runs()
        self._top = top_logprobs
        self._ended = False

    @property
    def ended(self) -> bool:
        """True once ``Finished`` or ``Failed`` has been told; what comes after it is ignored."""
        return self._ended

    def feed(self, *pieces: bytes) -> list[neutral.Event]:
        """The events that these bytes of the body complete; ``pieces`` as they came, best a frame each."""
        events: list[neutral.Event] = []
        at = 0
        while at < len(pieces) and not self._ended:
            texts = self._runs.take(pieces, at) if self._frames.is_between else []
            if texts:
                events += _texts(texts)
                at += len(texts)
            else:
                self._frame_by_frame(pieces[at], events)
                at += 1
        return events

    def _frame_by_frame(self, data: bytes, events: list[neutral.Event]) -> None:
        try:
            frames = self._frames.feed(data)
        except ProtocolError as error:
            for earlier in error.before:
                if isinstance(earlier, sse.Event):
                    self._frame(earlier, events)
            self._fail(events, unreadable(error))
            return
        for frame in frames:
            self._frame(frame, events)
        if self._has_runs and len(frames) == 1 and self._frames.is_between and not self._ended:
            self._runs.learn(data)

    def eof(self) -> list[neutral.Event]:
        """The body ended: nothing when the answer was complete, else ``Failed``."""
        events: list[neutral.Event] = []
        if not self._ended:
            self._fail(events, INCOMPLETE)
        return events

    def _frame(self, frame: sse.Event, events: list[neutral.Event]) -> None:
        if self._ended:
            return
        if frame.name == "error":
            self._fail(events, failure_of(frame.data))
            return
        try:
            self._take(frame.data, events)
        except UNREADABLE as error:
            self._fail(events, unreadable(error))

    @abstractmethod
    def _take(self, data: bytes, events: list[neutral.Event]) -> None:
        """Add what one frame's data tells."""

    def _fail(self, events: list[neutral.Event], failed: Failed) -> None:
        if not self._ended:
            self._ended = True
            events.append(failed)

    def _logprobs(self, found: list[_Logprob]) -> tuple[neutral.Logprob, ...]:
        return tuple(
            neutral.Logprob(
                one.token,
                one.logprob or 0.0,
                one.bytes,
                tuple(
                    neutral.Alternative(top.token, top.logprob or 0.0, top.bytes)
                    for top in one.top_logprobs[: self._top]
                ),
            )
            for one in found
        )


def _texts(texts: list[bytes]) -> list[neutral.TextDelta]:
    """Deltas of texts that are sound JSON strings without their quotes; an empty one tells nothing."""
    if b"" in texts:
        texts = [text for text in texts if text]
        if not texts:
            return []
    return _DECODE_TEXTS.decode(b'[{"text":"' + b'"},{"text":"'.join(texts) + b'"}]')


_DECODE_TEXTS = msgspec.json.Decoder(list[neutral.TextDelta])
_DECODE_CHUNK = msgspec.json.Decoder(_Chunk)
_DECODE_COMPLETION = msgspec.json.Decoder(Completion)


class ChatStream(_Stream):
    """The answer to ``chat_call``: deltas, the finish reason, usage and timings, then ``[DONE]``.

    Without ``[DONE]`` an answer is not complete: llama-server leaves it out after an error in mid-stream.
    """

    _has_runs = True

    def __init__(self, top_logprobs: int = 0) -> None:
        super().__init__(top_logprobs)
        self._reason = ""
        self._stop_word = ""
        self._usage: _Usage | None = None
        self._timings: _Timings | None = None

    def _take(self, data: bytes, events: list[neutral.Event]) -> None:
        if data == b"[DONE]":
            self._finish(events)
            return
        chunk = _DECODE_CHUNK.decode(data)
        if chunk.error is not None:
            self._fail(events, reported(chunk.error))
            return
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        if chunk.verbose is not None:
            self._stop_word = chunk.verbose.stopping_word
        if chunk.prompt_progress is not None:
            events.append(_read(chunk.prompt_progress))
        if chunk.choices:
            choice = chunk.choices[0]
            self._reason = choice.finish_reason or self._reason
            self._delta(choice, events)

    def _delta(self, choice: _Choice, events: list[neutral.Event]) -> None:
        delta = choice.delta
        logprobs: tuple[neutral.Logprob, ...] = ()
        if choice.logprobs and choice.logprobs.content:
            logprobs = self._logprobs(choice.logprobs.content)
        # the probability of an end token comes without text, and is left out: clients do not expect it
        if delta.reasoning_content:
            events.append(neutral.ThinkingDelta(delta.reasoning_content, logprobs))
            logprobs = ()
        if delta.content:
            events.append(neutral.TextDelta(delta.content, logprobs))
        for call in delta.tool_calls or ():
            function = call.function
            events.append(
                neutral.ToolCallDelta(
                    call.index, call.id or "", function.name or "", function.arguments or ""
                )
            )

    def _finish(self, events: list[neutral.Event]) -> None:
        if not self._reason:
            self._fail(events, INCOMPLETE)
            return
        self._ended = True
        counted = _counted(self._usage, self._timings)
        reason = _STOP_REASONS.get(self._reason, "stop")
        events.append(Finished(reason, counted, _timings(self._timings), stop_word=self._stop_word))


class CompletionStream(_Stream):
    """The answer to ``completion_call``: one chunk per token, the last with ``stop: true``; no ``[DONE]``."""

    def _take(self, data: bytes, events: list[neutral.Event]) -> None:
        chunk = _DECODE_COMPLETION.decode(data)
        if chunk.error is not None:
            self._fail(events, reported(chunk.error))
            return
        if chunk.prompt_progress is not None:
            events.append(_read(chunk.prompt_progress))
        if chunk.content:
            events.append(neutral.TextDelta(chunk.content, self._logprobs(chunk.completion_probabilities)))
        if chunk.stop:
            self._ended = True
            usage = Usage(
                chunk.tokens_evaluated, chunk.timings.cache_n if chunk.timings else 0, chunk.tokens_predicted
            )
            reason = _STOP_REASONS.get(chunk.stop_type, "stop")
            events.append(Finished(reason, usage, _timings(chunk.timings), chunk.stopping_word))


def _read(progress: _Progress) -> neutral.PromptRead:
    return neutral.PromptRead(progress.total, progress.cache, progress.processed)


def _usage_of(timings: _Timings | None) -> Usage:
    if timings is None:
        return Usage()
    return Usage(timings.cache_n + timings.prompt_n, timings.cache_n, timings.predicted_n)


def usage_in(answer: bytes) -> Usage:
    """The tokens that a whole chat answer, or the last chunk of a stream, tells of; zeros where it tells nothing readable."""
    try:
        told = _DECODE_COUNTED.decode(answer)
    except UNREADABLE:
        return Usage()
    return _counted(told.usage, told.timings)


def _counted(usage: _Usage | None, timings: _Timings | None) -> Usage:
    if usage is None:
        return _usage_of(timings)
    details = usage.prompt_tokens_details
    return Usage(usage.prompt_tokens, details.cached_tokens if details else 0, usage.completion_tokens)


def _timings(timings: _Timings | None) -> neutral.Timings:
    if timings is None:
        return neutral.Timings()
    return neutral.Timings(timings.prompt_ms or 0.0, timings.predicted_ms or 0.0)
