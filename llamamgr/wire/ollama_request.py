"""Ollama's requests: ``/api/generate``, ``/api/chat`` and ``/api/show`` parsed into frozen types.

Bad input is refused with Ollama's own texts, since clients match them. Where Ollama answers 500 for a
client's mistake the status here is 400, with the same text. Facts: Ollama api/types.go, server/routes.go,
and answers of a real Ollama.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from llamamgr.core.durations import parse_keep_alive
from llamamgr.wire import golang
from llamamgr.wire.errors import DialectError
from llamamgr.wire.images import unwrapped
from llamamgr.wire.neutral import (
    JsonObject,
    JsonSchema,
    Message,
    ResponseFormat,
    Sampling,
    Think,
    ToolCall,
)
from llamamgr.wire.ollama_options import LoadWishes, Options, parse_options
from llamamgr.wire.openai_tools import without_nulls

_LEVELS = ("high", "medium", "low", "max")
_NOTHING = msgspec.Raw(b"")


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    """What generate and chat share. ``keep_alive`` is seconds (inf = for ever, None = the default).

    ``shows_prompt`` asks for the prompt as it would go to the engine, and for no answer. Two mistakes are told later, as Ollama
    does: ``bad_options`` once the model is known to be able to do what is asked, ``bad_format`` once it is loaded.
    """

    model: str
    stream: bool = True
    keep_alive: float | None = None
    options: Options = Options()
    response_format: ResponseFormat | None = None
    think: Think = None
    truncate: bool = True
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    shows_prompt: bool = False
    bad_options: DialectError | None = None
    bad_format: DialectError | None = None

    @property
    def sampling(self) -> Sampling:
        return self.options.sampling

    @property
    def load(self) -> LoadWishes:
        return self.options.load

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.options.ignored


class GenerateRequest(_Common, frozen=True, kw_only=True):
    """``POST /api/generate``. ``images`` are checked base64; ``context`` token ids of an earlier answer."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: tuple[int, ...] = ()
    raw: bool = False
    images: tuple[str, ...] = ()

    @property
    def is_load(self) -> bool:
        """An empty prompt only loads the model, or with ``keep_alive`` 0 unloads it."""
        return not self.prompt

    @property
    def is_unload(self) -> bool:
        return self.is_load and self.keep_alive == 0


class ChatBody(_Common, frozen=True, kw_only=True):
    """``POST /api/chat``. ``tools`` are the client's raw JSON objects, schemas whole."""

    messages: tuple[Message, ...] = ()
    tools: tuple[msgspec.Raw, ...] = ()

    @property
    def is_load(self) -> bool:
        """No messages only load the model, or with ``keep_alive`` 0 unload it."""
        return not self.messages

    @property
    def is_unload(self) -> bool:
        return self.is_load and self.keep_alive == 0

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(image for message in self.messages for image in message.images)


class ShowRequest(msgspec.Struct, frozen=True):
    """``POST /api/show``; ``system`` overrides the model's own in the answer, ``options`` its parameters in the Modelfile."""

    model: str
    system: str = ""
    verbose: bool = False
    options: dict[str, Any] = {}


Inference: TypeAlias = GenerateRequest | ChatBody


class _WireCommon(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    format: msgspec.Raw = _NOTHING
    keep_alive: Any = None
    options: dict[str, Any] | None = None
    think: Any = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    shows_prompt: bool | None = msgspec.field(default=None, name="_debug_render_only")


class WireGenerate(_WireCommon, kw_only=True):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: tuple[int, ...] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class _WireFunction(msgspec.Struct):
    name: str | None = None
    arguments: msgspec.Raw = _NOTHING
    index: int | None = None


class _WireCall(msgspec.Struct):
    function: _WireFunction = msgspec.field(default_factory=_WireFunction)
    id: str | None = None


class _WireMessage(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_WireCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class WireChat(_WireCommon, kw_only=True):
    messages: list[_WireMessage] | None = None
    tools: msgspec.Raw = _NOTHING


class _WireToolFunction(msgspec.Struct):
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _WireTool(msgspec.Struct):
    type: str | None = None
    function: _WireToolFunction | None = None


class _WireTools(msgspec.Struct):
    tools: list[_WireTool] | None = None


class _RawTools(msgspec.Struct):
    tools: tuple[msgspec.Raw, ...] | None = None


class WireShow(msgspec.Struct):
    model: str | None = None
    name: str | None = None
    system: str | None = None
    template: str | None = None
    verbose: bool | None = None
    options: dict[str, Any] | None = None


_GO_TYPES = {
    "context": "[]int",
    "context[]": "int",
    "images": "[]api.ImageData",
    "images[]": "api.ImageData",
    "messages": "[]api.Message",
    "messages[]": "api.Alias",
    "messages[].images": "[]api.ImageData",
    "messages[].images[]": "api.ImageData",
    "messages[].tool_calls": "[]api.ToolCall",
    "messages[].tool_calls[]": "api.ToolCall",
    "messages[].tool_calls[].function": "api.ToolCallFunction",
    "tools": "api.Tools",
    "tools[]": "api.Tool",
    "tools[].function": "api.ToolFunction",
    "tools[].function.parameters": "api.ToolFunctionParameters",
}
_NO_OBJECT = "Value looks like object, but can't find closing '}' symbol"  # whatever it is instead


def parse_generate(body: bytes) -> GenerateRequest:
    """``DialectError`` in Ollama's words for anything that cannot be asked."""
    wire = golang.decode(body, WireGenerate, "GenerateRequest", _GO_TYPES)
    images, common = _images(wire.images, "GenerateRequest"), _common(wire)
    if not (wire.model or "").strip():
        raise model_not_found(wire.model or "")
    return GenerateRequest(
        **common,
        **_told_later(wire),
        prompt=wire.prompt or "",
        suffix=wire.suffix or "",
        system=wire.system or "",
        template=wire.template or "",
        context=wire.context or (),
        raw=bool(wire.raw),
        images=images,
    )


def parse_chat(body: bytes) -> ChatBody:
    """``DialectError`` in Ollama's words for anything that cannot be asked."""
    wire = golang.decode(body, WireChat, "ChatRequest", _GO_TYPES)
    common = _common(wire)
    messages = tuple(_message(message) for message in wire.messages or ())
    tools = _tools(bytes(wire.tools))
    if not (wire.model or "").strip():
        raise DialectError(400, "model is required")
    return ChatBody(**common, **_told_later(wire), messages=messages, tools=tools)


def parse_show(body: bytes) -> ShowRequest:
    """``name`` stands in for ``model``, as older clients send it."""
    wire = golang.decode(body, WireShow, "ShowRequest", {})
    model = wire.model or wire.name or ""
    if not model.strip():
        raise DialectError(400, "model is required")
    return ShowRequest(model, wire.system or "", bool(wire.verbose), wire.options or {})


def model_not_found(name: str, param: str | None = None) -> DialectError:
    """What generate and chat answer for a model that is not there; clients look for ``not found``."""
    return DialectError(404, f"model '{name}' not found", param=param)


def _common(wire: _WireCommon) -> dict[str, Any]:
    top = wire.top_logprobs or 0
    if not -(2**63) <= top < 2**63:
        field = f"{'Generate' if isinstance(wire, WireGenerate) else 'Chat'}Request.top_logprobs"
        raise DialectError(
            400, f"json: cannot unmarshal number {top} into Go struct field {field} of type int"
        )
    keep_alive, think = _keep_alive(wire.keep_alive), _think(wire.think)
    if not 0 <= top <= 20:
        raise DialectError(400, "top_logprobs must be between 0 and 20")
    return {
        "model": wire.model or "",
        "stream": wire.stream is not False,
        "keep_alive": keep_alive,
        "think": think,
        "truncate": wire.truncate is not False,
        "shift": wire.shift is not False,
        "logprobs": bool(wire.logprobs),
        "top_logprobs": top,
        "shows_prompt": bool(wire.shows_prompt),
    }


def _told_later(wire: _WireCommon) -> dict[str, Any]:
    """What Ollama looks at once it has the model, and what is wrong with it."""
    told: dict[str, Any] = {}
    try:
        told["options"] = parse_options(wire.options or {})
    except DialectError as error:
        told["bad_options"] = error
    try:
        told["response_format"] = _format(bytes(wire.format))
    except DialectError as error:
        told["bad_format"] = error
    return told


def _keep_alive(value: object) -> float | None:
    if value is None:
        return None
    try:
        return parse_keep_alive(value)
    except ValueError as error:
        raise DialectError(400, str(error)) from None
    except OverflowError:
        raise DialectError(400, "json: cannot unmarshal number into Go value of type float64") from None


def _think(value: object) -> Think:
    if value is None or isinstance(value, bool) or value in _LEVELS:
        return value
    if isinstance(value, str):
        quoted = golang.quote(value.encode())
        raise DialectError(
            400, f'invalid think value: {quoted} (must be "high", "medium", "low", "max", true, or false)'
        )
    raise DialectError(
        400, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'
    )


def _format(raw: bytes) -> ResponseFormat | None:
    if raw in (b"", b"null", b'""'):
        return None
    if raw == b'"json"':
        return JsonObject()
    if raw[:1] == b"{":
        return JsonSchema(msgspec.Raw(raw))
    raise DialectError(
        400, f'invalid format: {golang.quote(raw)}; expected "json" or a valid JSON Schema object'
    )


def _images(images: list[str] | None, struct: str) -> tuple[str, ...]:
    for place, image in enumerate(images or ()):
        at = golang.illegal_base64_at(image)
        if at >= 0:
            field = f"{struct}.images.{place} of type api.ImageData"
            raise DialectError(
                400, f"json: cannot unmarshal string into {field}: illegal base64 data at input byte {at}"
            )
    return tuple(map(unwrapped, images or ()))


def _message(wire: _WireMessage) -> Message:
    return Message(
        role=(wire.role or "").lower(),
        content=wire.content or "",
        thinking=wire.thinking or "",
        images=_images(wire.images, "Alias"),
        tool_calls=tuple(_tool_call(call, place) for place, call in enumerate(wire.tool_calls or ())),
        tool_name=wire.tool_name or "",
        tool_call_id=wire.tool_call_id or "",
    )


def _tool_call(wire: _WireCall, place: int) -> ToolCall:
    function = wire.function
    arguments = bytes(function.arguments)
    if arguments in (b"", b"null"):
        arguments = b"{}"
    elif arguments[:1] != b"{":
        raise DialectError(400, _NO_OBJECT)
    index = place if function.index is None else function.index
    return ToolCall(wire.id or "", function.name or "", arguments.decode(), index)


def _tools(given: bytes) -> tuple[msgspec.Raw, ...]:
    """The tools as they were given, schemas whole, once what the engine needs of them is sound.

    To Ollama a null is the same as nothing.
    """
    if given in (b"", b"null"):
        return ()
    body = b'{"tools":%b}' % given
    _, sound = golang.decode_sound(body, _WireTools, "ChatRequest", _GO_TYPES)
    tools = msgspec.json.decode(sound, type=_RawTools).tools or ()
    return tuple(map(without_nulls, tools))
