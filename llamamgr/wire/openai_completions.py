"""``/v1/completions``: prompts continued as they are, in OpenAI's older form.

Translated rather than passed on, since llama-server's own endpoint of that name sends ``data: null`` first when there
are several prompts, counts only one of them, has the log probabilities of the chat form and knows neither ``echo`` nor
``suffix``. All prompts and all ``n`` go in one call to ``/completion``, whose ``index`` is prompt × n + choice; sampling
fields pass under their own names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.engine import EngineCall
from llamamgr.wire.engine_errors import INCOMPLETE, UNREADABLE, failure_of, unreadable
from llamamgr.wire.errors import DialectError, ProtocolError
from llamamgr.wire.guidance import laid_over
from llamamgr.wire.neutral import Failed, Usage
from llamamgr.wire.ollama_request import model_not_found
from llamamgr.wire.persona import NOBODY, Persona
from llamamgr.wire.sse import SseParser

Prompt: TypeAlias = str | tuple[int, ...]

_MOST_CHOICES = 1024
_MOST_LOGPROBS = 20
_OURS = frozenset(
    {
        "model",
        "prompt",
        "stream",
        "stream_options",
        "echo",
        "suffix",
        "logprobs",
        "n",
        "best_of",
        "user",
        "response_fields",
    }
)
_FIELDS = (
    "index",
    "content",
    "tokens",
    "stop",
    "stop_type",
    "tokens_predicted",
    "tokens_evaluated",
    "timings",
)
_NOTHING = msgspec.Raw(b"")


class CompletionRequest(msgspec.Struct, frozen=True):
    """``POST /v1/completions``. ``sampling`` are the fields that the engine gets as they came."""

    model: str
    prompts: tuple[Prompt, ...]
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    suffix: str = ""
    logprobs: int | None = None
    n: int = 1
    silent: bool = False
    sampling: Mapping[str, object] = {}

    @property
    def choices(self) -> int:
        return len(self.prompts) * self.n

    def call(self) -> EngineCall:
        """All of it in one call; its answer is read by ``Renderer``."""
        body: dict[str, Any] = {**self.sampling, "stream": True, "response_fields": _FIELDS}
        if self.logprobs is not None:
            body["n_probs"] = max(1, self.logprobs)
        if self.n > 1:
            body["n"] = self.n
        if self.suffix:
            body |= {"input_prefix": self.prompts[0], "input_suffix": self.suffix}
            return EngineCall("POST", "/infill", msgspec.json.encode(body))
        body["prompt"] = self.prompts[0] if len(self.prompts) == 1 else self.prompts
        return EngineCall("POST", "/completion", msgspec.json.encode(body))


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Wire(msgspec.Struct):
    model: str | None = None
    prompt: msgspec.Raw = _NOTHING
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | None = None


def parse(body: bytes) -> CompletionRequest:
    """``DialectError`` 400 for what cannot be asked."""
    if not body.strip():
        raise DialectError(400, "EOF")
    wire, sound = golang.decode_sound(body, Wire, "openai.CompletionRequest", {})
    if not wire.model:
        raise model_not_found("", "model")
    fields = msgspec.json.decode(sound, type=dict[str, msgspec.Raw])
    request = CompletionRequest(
        model=wire.model,
        prompts=_prompts(wire.prompt),
        stream=bool(wire.stream),
        include_usage=bool(wire.stream_options and wire.stream_options.include_usage),
        echo=bool(wire.echo),
        suffix=wire.suffix or "",
        logprobs=wire.logprobs,
        n=wire.n or 1,
        silent=wire.max_tokens == 0,
        sampling={name: value for name, value in fields.items() if name not in _OURS},
    )
    _check(request, wire.best_of)
    return request


def guided(request: CompletionRequest, persona: Persona) -> CompletionRequest:
    """With the persona's sampling where it says nothing, and no more answers or other values than the persona allows."""
    if persona == NOBODY:
        return request
    changed = laid_over(persona, {**request.sampling, "n": request.n})
    n = changed.pop("n", request.n)
    return msgspec.structs.replace(request, sampling={**request.sampling, **changed}, n=n)


def _check(request: CompletionRequest, best_of: int | None) -> None:
    if best_of is not None and best_of != request.n:
        raise DialectError(400, "best_of other than n is not served; leave it out", param="best_of")
    if request.n < 1 or request.choices > _MOST_CHOICES:
        raise DialectError(400, f"n times prompts must be between 1 and {_MOST_CHOICES}", param="n")
    if request.logprobs is not None and not 0 <= request.logprobs <= _MOST_LOGPROBS:
        raise DialectError(400, f"logprobs must be between 0 and {_MOST_LOGPROBS}", param="logprobs")
    if request.echo and request.logprobs is not None:
        raise DialectError(
            400, "log probabilities of a prompt are not served; leave out echo or logprobs", param="logprobs"
        )
    if request.suffix and (len(request.prompts) > 1 or not isinstance(request.prompts[0], str)):
        raise DialectError(400, "suffix goes with one prompt, which must be text", param="suffix")


def _prompts(raw: msgspec.Raw) -> tuple[Prompt, ...]:
    if bytes(raw) in (b"", b"null"):
        raise DialectError(400, "prompt is required", param="prompt")
    try:
        value = msgspec.json.decode(bytes(raw), type=str | list[str | int | list[int]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        wanted = "a string, a list of strings, a list of token ids or a list of such lists"
        raise DialectError(400, f"prompt must be {wanted}: {error}", param="prompt") from None
    if isinstance(value, str):
        return (value,)
    if not value:
        raise DialectError(400, "prompt must not be an empty list", param="prompt")
    if isinstance(value[0], int):
        tokens = tuple(one for one in value if isinstance(one, int))
        if len(tokens) == len(value):
            return (tokens,)
    elif all(not isinstance(one, int) for one in value):
        return tuple(tuple(one) if isinstance(one, list) else str(one) for one in value)
    raise DialectError(400, "prompt mixes token ids with texts", param="prompt")


class _Top(msgspec.Struct):
    token: str = ""
    logprob: float | None = None


class _Probability(_Top):
    top_logprobs: list[_Top] = []


class _Timings(msgspec.Struct):
    cache_n: int = 0


class _Chunk(msgspec.Struct):
    index: int = 0
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    stop_type: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    timings: msgspec.Raw = _NOTHING
    completion_probabilities: list[_Probability] = []
    error: msgspec.Raw = _NOTHING


_DECODE = msgspec.json.Decoder(_Chunk)


class _Choice:
    """One answer while it comes."""

    def __init__(self, echoed: str) -> None:
        self.texts = [echoed] if echoed else []
        self.offset = len(echoed)
        self.echoed = echoed
        self.logprobs: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        self.last: _Chunk | None = None
        self.cached = 0


class Renderer:
    """The engine's stream → OpenAI's, or one object by ``whole``.

    ``head`` are the fields that every object starts with; ``echoed`` the text of each prompt when it is to be repeated.
    """

    def __init__(
        self, request: CompletionRequest, head: Mapping[str, Any], echoed: Sequence[str] = ()
    ) -> None:
        self.failed: Failed | None = None
        self._request = request
        self._head = msgspec.json.encode({**head, "object": "text_completion"})[:-1]
        self._frames = SseParser()
        before = [echoed[place // request.n] if echoed else "" for place in range(request.choices)]
        self._choices = [_Choice(text) for text in before]
        self._left = request.choices
        self._timings = _NOTHING

    @property
    def ended(self) -> bool:
        """True once every choice has come to its end, or something failed."""
        return not self._left or self.failed is not None

    def feed(self, data: bytes) -> bytes:
        """What these bytes give to a client that streams; nothing comes after ``failed``."""
        out = []
        try:
            for frame in self._frames.feed(data):
                if self.ended:
                    break
                if frame.name == "error":
                    self.failed = failure_of(frame.data)
                elif frame.data not in (b"null", b"[DONE]"):
                    out.append(self._chunk(_DECODE.decode(frame.data), frame.data))
        except (*UNREADABLE, ProtocolError) as error:
            self.failed = unreadable(error)
        if not self._left and self._request.stream and out:
            out.append(self._end())
        return b"".join(out)

    def eof(self) -> None:
        """The engine's answer is over: ``failed`` when it was not complete."""
        if not self.ended:
            self.failed = INCOMPLETE

    def whole(self) -> bytes:
        """The answer to a request without ``stream``."""
        choices = [self._shown(place, "".join(one.texts), one) for place, one in enumerate(self._choices)]
        more: dict[str, Any] = {"choices": choices, "usage": self._usage()}
        if bytes(self._timings):
            more["timings"] = self._timings
        return self._head + b"," + msgspec.json.encode(more)[1:]

    def _chunk(self, chunk: _Chunk, data: bytes) -> bytes:
        if bytes(chunk.error):
            self.failed = failure_of(data)
            return b""
        if not 0 <= chunk.index < len(self._choices):
            raise ProtocolError(f"an answer to prompt {chunk.index} of {len(self._choices)}")
        choice = self._choices[chunk.index]
        if choice.last is not None:
            return b""
        text = "" if self._request.silent else chunk.content
        shown = (
            self._logprobs(choice, chunk)
            if chunk.completion_probabilities and not self._request.silent
            else None
        )
        if chunk.stop:
            choice.cached = _cached(chunk)
            choice.last = chunk
            self._left -= 1
            self._timings = chunk.timings if bytes(chunk.timings) else self._timings
        if not self._request.stream:
            choice.texts.append(text)
            return b""
        text, choice.echoed = choice.echoed + text, ""
        if not text and not chunk.stop and shown is None:
            return b""
        return self._frame({"choices": [self._one(chunk.index, text, choice, shown)]})

    def _end(self) -> bytes:
        done = b"data: [DONE]\n\n"
        if not self._request.include_usage:
            return done
        more: dict[str, Any] = {"choices": [], "usage": self._usage()}
        if bytes(self._timings):
            more["timings"] = self._timings
        return self._frame(more) + done

    def _frame(self, more: dict[str, Any]) -> bytes:
        return b"data: " + self._head + b"," + msgspec.json.encode(more)[1:] + b"\n\n"

    def _shown(self, index: int, text: str, choice: _Choice) -> dict[str, Any]:
        asked = self._request.logprobs is not None
        return self._one(index, text, choice, choice.logprobs if asked else None)

    def _one(self, index: int, text: str, choice: _Choice, logprobs: Any) -> dict[str, Any]:
        told = {"logprobs": logprobs} if self._request.logprobs is not None else {}
        return {"text": text, "index": index, **told, "finish_reason": self._reason(choice)}

    def _reason(self, choice: _Choice) -> str | None:
        if choice.last is None:
            return None
        return "length" if self._request.silent or choice.last.stop_type == "limit" else "stop"

    def _logprobs(self, choice: _Choice, chunk: _Chunk) -> dict[str, list[Any]]:
        """OpenAI's older form; collected for ``whole``, and returned for this chunk alone."""
        top = self._request.logprobs or 0
        told: dict[str, list[Any]] = {name: [] for name in choice.logprobs}
        for one in chunk.completion_probabilities:
            told["tokens"].append(one.token)
            told["token_logprobs"].append(one.logprob or 0.0)
            told["top_logprobs"].append(
                {rival.token: rival.logprob or 0.0 for rival in one.top_logprobs[:top]}
            )
            told["text_offset"].append(choice.offset)
            choice.offset += len(one.token)
        if not self._request.stream:
            for name, values in told.items():
                choice.logprobs[name] += values
        return told

    @property
    def usage(self) -> Usage:
        """Tokens of what has come to its end; the choices of one prompt share it, so it is counted once."""
        ends = [choice.last for choice in self._choices if choice.last is not None]
        prompt = sum(last.tokens_evaluated for last in ends[:: self._request.n])
        answer = 0 if self._request.silent else sum(last.tokens_predicted for last in ends)
        cached = sum(choice.cached for choice in self._choices[:: self._request.n])
        return Usage(prompt, cached, answer)

    def _usage(self) -> dict[str, Any]:
        told = self.usage
        return {
            "prompt_tokens": told.prompt,
            "completion_tokens": told.completion,
            "total_tokens": told.prompt + told.completion,
            "prompt_tokens_details": {"cached_tokens": told.cached},
        }


def _cached(chunk: _Chunk) -> int:
    raw = bytes(chunk.timings).decode()  # they pass as they came, so they must be sound
    return msgspec.json.decode(raw, type=_Timings).cache_n if raw.startswith("{") else 0
