"""llama-server's own dialect: calls to it, and its streams as neutral events.

Every generation is asked for as a stream, whatever the client wants: a stream can be watched, cancelled and
known to be cut. Facts (endpoints, fields, order of chunks, errors) are those of llama.cpp b11434, read and
recorded; fields that are not named here are skipped, so newer builds may add more.
"""

from __future__ import annotations

import base64
from typing import TypeAlias, TypeVar

import msgspec

from llamamgr.wire import neutral, placing
from llamamgr.wire.engine_errors import UNREADABLE, error_of
from llamamgr.wire.engine_stream import ChatStream, Completion, CompletionStream
from llamamgr.wire.errors import ProtocolError
from llamamgr.wire.neutral import ChatRequest, Message, PromptRequest

__all__ = [
    "ChatStream",
    "CompletionStream",
    "EngineCall",
    "EngineStream",
    "apply_template_call",
    "chat_call",
    "completion_call",
    "count_call",
    "detokenize_call",
    "error_of",
    "infill_call",
    "props_call",
    "read_content",
    "read_count",
    "read_marker",
    "read_prompt",
    "read_tokens",
    "tokenize_call",
]

_T = TypeVar("_T", bound=msgspec.Struct)

EngineStream: TypeAlias = ChatStream | CompletionStream


class EngineCall(msgspec.Struct, frozen=True):
    """A request to llama-server; ``body`` is JSON, ``top_logprobs`` what its stream cuts alternatives down
    to.
    """

    method: str
    path: str
    body: bytes
    top_logprobs: int = 0

    def stream(self) -> EngineStream:
        """The reader of this call's answer."""
        kind = CompletionStream if self.path in ("/completion", "/infill") else ChatStream
        return kind(self.top_logprobs)


def chat_call(request: ChatRequest) -> EngineCall:
    """``POST /v1/chat/completions``.

    ``sampling`` may hold any field of it: ``return_progress`` asks for ``PromptRead``, ``verbose`` for the stop
    word of ``Finished``.
    """
    body: dict[str, object] = {
        **request.sampling,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = request.tools
    if request.tool_choice:
        body["tool_choice"] = request.tool_choice
    if request.think is not None:
        body["chat_template_kwargs"] = _thinking(request.think)
    if isinstance(request.response_format, neutral.JsonObject):
        body["response_format"] = {"type": "json_object"}
    elif request.response_format is not None:
        # a bare `schema` beside the type is silently ignored by llama-server
        schema = {"name": "answer", "schema": request.response_format.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if (
        request.logprobs and not request.tools
    ):  # llama-server refuses to stream both; an answer is worth more than its odds
        # with 0 alternatives it sends no probabilities at all
        body |= {"logprobs": True, "top_logprobs": max(1, request.top_logprobs)}
    return EngineCall("POST", "/v1/chat/completions", msgspec.json.encode(body), request.top_logprobs)


def completion_call(request: PromptRequest, marker: str = "") -> EngineCall:
    """``POST /completion``, the native endpoint; ``marker`` is what the engine knows media by (``read_marker``).

    Of the last chunk only the fields read here are asked for: by default it repeats the whole prompt.
    """
    body: dict[str, object] = {
        **request.sampling,
        "prompt": _prompt(request, marker),
        "stream": True,
        "response_fields": list(Completion.__struct_fields__),
    }
    if isinstance(request.response_format, neutral.JsonObject):
        body["json_schema"] = {"type": "object"}
    elif request.response_format is not None:
        body["json_schema"] = request.response_format.schema
    elif request.grammar:
        body["grammar"] = request.grammar
    if request.logprobs:
        body["n_probs"] = max(1, request.top_logprobs)
    return EngineCall("POST", "/completion", msgspec.json.encode(body), request.top_logprobs)


def _prompt(request: PromptRequest, marker: str) -> object:
    if not request.media:
        return request.prompt
    text, media = placing.placed(request.prompt, request.media, marker)
    return {"prompt_string": text, "multimodal_data": media} if media else text


def infill_call(prefix: str, suffix: str, request: PromptRequest) -> EngineCall:
    """``POST /infill``: what stands between two texts, for models with tokens for it. The request's own prompt is not used."""
    call = completion_call(request)
    body: dict[str, object] = msgspec.json.decode(call.body)
    body |= {"input_prefix": prefix, "input_suffix": suffix, "prompt": ""}
    return EngineCall("POST", "/infill", msgspec.json.encode(body), call.top_logprobs)


def apply_template_call(
    messages: tuple[Message | msgspec.Raw, ...],
    think: neutral.Think = None,
    tools: tuple[msgspec.Raw, ...] = (),
) -> EngineCall:
    """``POST /apply-template``; the answer is read by ``read_prompt``."""
    body: dict[str, object] = {"messages": [_message(message) for message in messages]}
    if tools:
        body["tools"] = tools
    if think is not None:
        body["chat_template_kwargs"] = _thinking(think)
    return EngineCall("POST", "/apply-template", msgspec.json.encode(body))


def count_call(request: ChatRequest) -> EngineCall:
    """``POST /v1/chat/completions/input_tokens``, which older builds do not have; read by ``read_count``."""
    call = chat_call(request)
    return EngineCall("POST", f"{call.path}/input_tokens", call.body)


def props_call() -> EngineCall:
    """``GET /props``, what the engine says of itself; read by ``read_marker``."""
    return EngineCall("GET", "/props", b"")


def tokenize_call(content: str, *, add_special: bool = False) -> EngineCall:
    """``POST /tokenize``, control tokens in the text being such; the answer is read by ``read_tokens``."""
    body = {"content": content, "add_special": add_special, "parse_special": True}
    return EngineCall("POST", "/tokenize", msgspec.json.encode(body))


def detokenize_call(tokens: tuple[int, ...]) -> EngineCall:
    """``POST /detokenize``; the answer is read by ``read_content``."""
    return EngineCall("POST", "/detokenize", msgspec.json.encode({"tokens": tokens}))


def read_marker(body: bytes) -> str:
    """What stands for an image or a sound in a prompt: new with each start of an engine, on older builds always the same."""
    return _read(body, _Props).media_marker


def read_prompt(body: bytes) -> str:
    """The rendered prompt in an answer of ``/apply-template``; ``ProtocolError`` when there is none."""
    return _read(body, _PromptAnswer).prompt


def read_tokens(body: bytes) -> tuple[int, ...]:
    """The token ids in an answer of ``/tokenize``; ``ProtocolError`` when there are none."""
    return _read(body, _TokensAnswer).tokens


def read_count(body: bytes) -> int:
    """The number in an answer to ``count_call``; ``ProtocolError`` when there is none."""
    return _read(body, _CountAnswer).input_tokens


def read_content(body: bytes) -> str:
    """The text in an answer of ``/detokenize``; ``ProtocolError`` when there is none."""
    return _read(body, _ContentAnswer).content


class _Props(msgspec.Struct):
    media_marker: str = "<__media__>"


class _PromptAnswer(msgspec.Struct):
    prompt: str


class _TokensAnswer(msgspec.Struct):
    tokens: tuple[int, ...]


class _CountAnswer(msgspec.Struct):
    input_tokens: int


class _ContentAnswer(msgspec.Struct):
    content: str


def _read(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise ProtocolError(f"the engine sent what cannot be read: {error}") from None


def _thinking(think: bool | str) -> dict[str, object]:
    """Template arguments: ``enable_thinking`` must be a JSON bool, a level is an argument of its own."""
    if isinstance(think, str):
        return {"enable_thinking": True, "reasoning_effort": think}
    return {"enable_thinking": think}


def _message(message: Message | msgspec.Raw) -> dict[str, object] | msgspec.Raw:
    if isinstance(message, msgspec.Raw):
        return message
    wire: dict[str, object] = {"role": message.role, "content": message.content}
    if message.parts:
        wire["content"] = [_part(part) for part in message.parts]
    elif message.images:
        wire["content"] = [{"type": "text", "text": message.content}, *map(_media_part, message.images)]
    if message.thinking:
        wire["reasoning_content"] = message.thinking
    if message.tool_calls:
        wire["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_name:
        wire["name"] = message.tool_name
    if message.tool_call_id:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _tool_call(call: neutral.ToolCall) -> dict[str, object]:
    function = {"name": call.name, "arguments": call.arguments}
    wire: dict[str, object] = {"type": "function", "function": function}
    return {"id": call.id, **wire} if call.id else wire


def _part(part: neutral.Part) -> dict[str, object]:
    if isinstance(part, neutral.TextPart):
        return {"type": "text", "text": part.text}
    return _media_part(part.data)


def _media_part(data: str) -> dict[str, object]:
    """An image or a sound as a content part; clients send both in one list, so its first bytes tell."""
    start = base64.b64decode(data[: min(16, len(data) // 4 * 4)])
    if start[:4] == b"RIFF" and start[8:12] == b"WAVE":
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    if start[:3] == b"ID3" or start[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    kind = "jpeg" if start[:3] == b"\xff\xd8\xff" else "webp" if start[:4] == b"RIFF" else "png"
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}
