"""Embeddings in three forms: OpenAI's ``/v1/embeddings``, Ollama's ``/api/embed`` and ``/api/embeddings``.

All inputs of a request go in one call to the engine's ``/v1/embeddings``, and its vectors, which are normalised (L2),
go to the client as the bytes they came as, unless ``dimensions`` asks for their first numbers, normalised anew.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from llamamgr.core.durations import parse_keep_alive
from llamamgr.core.hub import parse_model_name
from llamamgr.wire import golang
from llamamgr.wire.engine import EngineCall
from llamamgr.wire.errors import DialectError, ProtocolError
from llamamgr.wire.ollama_options import LoadWishes, parse_options
from llamamgr.wire.ollama_request import model_not_found

# A text, or the ids of its tokens.
Input: TypeAlias = str | tuple[int, ...]

TOO_LONG = "the input length exceeds the context length"
# the engine's own words, which are Ollama's too
UNSUPPORTED = "This server does not support embeddings. Start it with `--embeddings`"
_MOST_INPUTS = 8192
_MOST_AT_ONCE = 256
_RESERVE = 2  # Ollama's two questions, for add_bos_token and add_eos_token, are always true (server/routes.go, EmbedHandler)
_NOTHING = msgspec.Raw(b"")
_INVALID = "invalid input type"


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """What is asked for, in whichever form.

    ``truncate`` cuts inputs that are too long instead of refusing them; ``dimensions`` 0 is all of them.
    ``keep_alive`` is seconds, None the default. ``reserve`` tokens of the context are left free, as Ollama does for an opening and
    a closing one, whatever the model adds. ``bad_options`` is told once there is the model, as Ollama does.
    """

    model: str
    inputs: tuple[Input, ...] = ()
    base64: bool = False
    dimensions: int = 0
    truncate: bool = False
    keep_alive: float | None = None
    load: LoadWishes = LoadWishes()
    reserve: int = 0
    bad_options: DialectError | None = None

    def batches(self) -> list[EmbeddingRequest]:
        """Itself, or so many of it that no answer of the engine's grows beyond measure: a vector may take 90 KB of JSON."""
        if len(self.inputs) <= _MOST_AT_ONCE:
            return [self]
        starts = range(0, len(self.inputs), _MOST_AT_ONCE)
        return [
            msgspec.structs.replace(self, inputs=self.inputs[start : start + _MOST_AT_ONCE])
            for start in starts
        ]

    def call(self) -> EngineCall:
        """The one call for all inputs."""
        form = "base64" if self.base64 and not self.dimensions else "float"
        body = {"input": self.inputs, "encoding_format": form}
        return EngineCall("POST", "/v1/embeddings", msgspec.json.encode(body))


class Embeddings(msgspec.Struct, frozen=True):
    """Vectors as raw JSON in the order of the inputs, and the tokens that all inputs had."""

    vectors: tuple[msgspec.Raw, ...]
    tokens: int


class WireV1(msgspec.Struct):
    model: str | None = None
    input: msgspec.Raw = _NOTHING
    encoding_format: str | None = None
    dimensions: int | None = None
    truncate: bool | None = None


class _Ollama(msgspec.Struct, kw_only=True):
    model: str | None = None
    keep_alive: Any = None
    options: dict[str, Any] | None = None


class WireEmbed(_Ollama, kw_only=True):
    input: msgspec.Raw = _NOTHING
    truncate: bool | None = None
    dimensions: int | None = None


class WireLegacy(_Ollama, kw_only=True):
    prompt: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0


class _Row(msgspec.Struct):
    embedding: msgspec.Raw
    index: int = 0


class _Answer(msgspec.Struct):
    data: list[_Row]
    usage: _Usage = msgspec.field(default_factory=_Usage)


def parse_v1(body: bytes) -> EmbeddingRequest:
    """``POST /v1/embeddings``; ``DialectError`` 400."""
    if not body.strip():
        raise DialectError(400, "EOF")
    wire = golang.decode(body, WireV1, "openai.EmbedRequest", {})
    if not wire.model:
        raise model_not_found("", "model")
    form = (wire.encoding_format or "float").lower()
    if form not in ("float", "base64"):
        raise DialectError(
            400,
            f"Invalid value for 'encoding_format' = {wire.encoding_format}. Supported values: ['float', 'base64'].",
            param="encoding_format",
        )
    if bytes(wire.input) in (b"", b"null", b'""', b"[]"):
        raise DialectError(400, "invalid input", param="input")
    inputs = _inputs(wire.input)
    if inputs is None:
        raise DialectError(400, _INVALID, param="input")
    return EmbeddingRequest(
        wire.model,
        inputs,
        base64=form == "base64",
        dimensions=_dimensions(wire.dimensions),
        truncate=bool(wire.truncate),
    )


def parse_embed(body: bytes) -> EmbeddingRequest:
    """``POST /api/embed``; no inputs at all is an answer without vectors. ``DialectError`` in Ollama's words."""
    wire = golang.decode(body, WireEmbed, "EmbedRequest", {})
    model = wire.model or ""
    if not model.strip():
        raise model_not_found(model)
    inputs = () if bytes(wire.input) in (b"", b"null", b'""', b"[]") else _inputs(wire.input)
    if inputs is None or any(not isinstance(one, str) for one in inputs):
        parse_model_name(model.strip())  # what can be no name is told first
        raise DialectError(400, _INVALID)
    return EmbeddingRequest(
        model,
        inputs,
        dimensions=max(wire.dimensions or 0, 0),
        truncate=wire.truncate is not False,
        keep_alive=_keep_alive(wire.keep_alive),
        **_load(wire),
        reserve=_RESERVE,
    )


def parse_legacy(body: bytes) -> EmbeddingRequest:
    """``POST /api/embeddings``, which cuts nothing; no prompt is an answer without a vector. ``DialectError`` in Ollama's words."""
    wire = golang.decode(body, WireLegacy, "EmbeddingRequest", {})
    model = wire.model or ""
    if not model.strip():
        raise DialectError(400, "model is required")
    return EmbeddingRequest(
        model,
        (wire.prompt,) if wire.prompt else (),
        keep_alive=_keep_alive(wire.keep_alive),
        **_load(wire),
        reserve=_RESERVE,
    )


def read(request: EmbeddingRequest, body: bytes) -> Embeddings:
    """The engine's answer to ``request.call()``; ``ProtocolError`` when it is none."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        rows = sorted(answer.data, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(len(request.inputs))):
            raise ProtocolError(f"the engine sent {len(rows)} vectors for {len(request.inputs)} inputs")
        vectors = [row.embedding for row in rows]
        if request.dimensions:
            vectors = [_shortened(vector, request) for vector in vectors]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the engine sent what cannot be read: {error}") from None
    return Embeddings(tuple(vectors), answer.usage.prompt_tokens)


def v1_answer(model: str, found: Embeddings) -> bytes:
    """The answer to ``parse_v1``."""
    rows = [
        {"object": "embedding", "embedding": vector, "index": index}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return golang.encode({"object": "list", "data": rows, "model": model, "usage": usage})


def embed_answer(model: str, found: Embeddings, total: int, load: int) -> bytes:
    """The answer to ``parse_embed``; ``total`` and ``load`` are nanoseconds. Zeros are left out, as Ollama does."""
    told = {"total_duration": total, "load_duration": load, "prompt_eval_count": found.tokens}
    shown = {name: value for name, value in told.items() if value} if found.vectors else {}
    return golang.encode({"model": model, "embeddings": found.vectors, **shown})


def legacy_answer(found: Embeddings) -> bytes:
    """The answer to ``parse_legacy``."""
    return golang.encode({"embedding": found.vectors[0] if found.vectors else ()})


def is_too_long(message: str) -> bool:
    """True for the engine's two ways to say that an input does not fit."""
    return "too large to process" in message or "exceeds the available context size" in message


def cut(tokens: Sequence[int], bare: Sequence[int], context: int, reserve: int) -> tuple[int, ...]:
    """``tokens`` cut to what ``context`` holds; ``bare`` are the same without special tokens, which are kept around them."""
    closing = tokens[-1:] if tuple(tokens[-1:]) != tuple(bare[-1:]) else ()
    opening = tokens[: max(0, len(tokens) - len(bare) - len(closing))]
    left = context - max(reserve, len(opening) + len(closing))
    return (*opening, *bare[:left], *closing)


def _inputs(raw: msgspec.Raw) -> tuple[Input, ...] | None:
    """The inputs, or None when they are neither texts nor token ids."""
    try:
        value = msgspec.json.decode(bytes(raw), type=str | list[str | int | list[int]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if isinstance(value, str):
        return (value,)
    if len(value) > _MOST_INPUTS and not isinstance(value[0], int):
        raise DialectError(400, f"input has more than {_MOST_INPUTS} elements", param="input")
    tokens = tuple(one for one in value if isinstance(one, int))
    if tokens:
        return (tokens,) if len(tokens) == len(value) else None
    return tuple(tuple(one) if isinstance(one, list) else str(one) for one in value)


def _dimensions(asked: int | None) -> int:
    if asked is not None and asked < 0:
        raise DialectError(400, "dimensions must be positive", param="dimensions")
    return asked or 0


def _load(wire: _Ollama) -> dict[str, Any]:
    """What its options want of the load, or what is wrong with them."""
    try:
        return {"load": parse_options(wire.options or {}).load}
    except DialectError as error:
        return {"bad_options": error}


def _keep_alive(value: object) -> float | None:
    if value is None:
        return None
    try:
        return parse_keep_alive(value)
    except (ValueError, OverflowError) as error:
        raise DialectError(400, str(error)) from None


def _shortened(vector: msgspec.Raw, request: EmbeddingRequest) -> msgspec.Raw:
    numbers = msgspec.json.decode(bytes(vector), type=list[float])
    if request.dimensions < len(numbers):
        numbers = numbers[: request.dimensions]
        length = math.sqrt(math.fsum(number * number for number in numbers))
        numbers = [number / length for number in numbers] if length else numbers
    if not request.base64:
        return msgspec.Raw(msgspec.json.encode(numbers))
    packed = struct.pack(f"<{len(numbers)}f", *numbers)
    return msgspec.Raw(msgspec.json.encode(base64.b64encode(packed).decode()))
