"""The neutral vocabulary: what a request asks of an engine, and what an engine tells while it answers.

Every dialect translates into these and out of them, so that N dialects need N modules and not N². Sampling
keeps the engine's own field names, since llama-server's are the richest set there is; JSON that nobody here
needs to understand (tool schemas, JSON schemas) stays the raw bytes the client sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

# Engine field name → JSON value: ``{"temperature": 0.8, "n_predict": 16}``.
Sampling: TypeAlias = Mapping[str, object]

Think: TypeAlias = bool | str | None
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool. ``arguments`` is JSON text, complete when it comes from a client."""

    id: str
    name: str
    arguments: str
    index: int = 0


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """Text between media."""

    text: str


class MediaPart(msgspec.Struct, frozen=True, tag="media"):
    """An image or a sound: base64 without a ``data:`` prefix."""

    data: str
    is_sound: bool = False


Part: TypeAlias = TextPart | MediaPart


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation.

    ``images`` are base64 without a ``data:`` prefix; ``tool_name`` belongs to role ``tool``. ``parts`` stand in
    for ``content`` and ``images`` where the order of text and media matters.
    """

    role: str
    content: str = ""
    thinking: str = ""
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""
    parts: tuple[Part, ...] = ()


class JsonObject(msgspec.Struct, frozen=True):
    """The answer must be a JSON object, whichever."""


class JsonSchema(msgspec.Struct, frozen=True):
    """The answer must fit this JSON schema (raw JSON)."""

    schema: msgspec.Raw


ResponseFormat: TypeAlias = JsonObject | JsonSchema


class ChatRequest(msgspec.Struct, frozen=True):
    """A conversation to go on with.

    A raw message is in the engine's own shape (OpenAI's) already. ``tools`` are raw JSON objects; ``think``
    None leaves it to the model's template. ``logprobs`` asks for the log probability of each token,
    ``top_logprobs`` for so many alternatives.
    """

    messages: tuple[Message | msgspec.Raw, ...]
    tools: tuple[msgspec.Raw, ...] = ()
    tool_choice: str = ""
    sampling: Sampling = {}
    response_format: ResponseFormat | None = None
    think: Think = None
    logprobs: bool = False
    top_logprobs: int = 0


class PromptRequest(msgspec.Struct, frozen=True):
    """A prompt, already in the model's own format, to be continued; no template is applied to it.

    ``media`` are base64; where they stand, ``prompt`` has the tags of ``wire.placing``.
    """

    prompt: str
    sampling: Sampling = {}
    response_format: ResponseFormat | None = None
    grammar: str = ""
    logprobs: bool = False
    top_logprobs: int = 0
    media: tuple[str, ...] = ()


class Alternative(msgspec.Struct, frozen=True):
    """A token that could have been: text, natural log probability, bytes (none for a control token)."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()


class Logprob(msgspec.Struct, frozen=True):
    """The log probability of a token that came, and of its strongest rivals."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()
    top: tuple[Alternative, ...] = ()


class TextDelta(msgspec.Struct, frozen=True):
    """A piece of the answer."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


class ThinkingDelta(msgspec.Struct, frozen=True):
    """A piece of the reasoning before the answer."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of tool call ``index``: ``id`` and ``name`` come once, ``arguments`` is JSON to be joined."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class PromptRead(msgspec.Struct, frozen=True):
    """How much of the prompt has been read: tokens in all, of those cached ones, and read by now."""

    total: int
    cached: int = 0
    read: int = 0


class Usage(msgspec.Struct, frozen=True):
    """Tokens: of the whole prompt, of those the cached ones, and of the answer."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


class Timings(msgspec.Struct, frozen=True):
    """Milliseconds spent on the prompt and on the answer, as the engine measured them."""

    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class Finished(msgspec.Struct, frozen=True):
    """The good end of an answer. ``stop_word`` is the stop text that was met, where the engine was asked for it."""

    reason: FinishReason
    usage: Usage = Usage()
    timings: Timings = Timings()
    stop_word: str = ""


class Failed(msgspec.Struct, frozen=True):
    """The bad end of an answer: an HTTP status, one plain sentence, the engine's word for its kind.

    ``param`` is the field of the request that is at fault and ``code`` how, where that is known.
    """

    status: int
    message: str
    type: str = "server_error"
    param: str | None = None
    code: str | None = None


Event: TypeAlias = PromptRead | TextDelta | ThinkingDelta | ToolCallDelta | Finished | Failed
