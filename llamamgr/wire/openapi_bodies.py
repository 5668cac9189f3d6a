"""What the request types cannot tell of themselves: required fields, limits, and the forms of values that are read raw."""

from __future__ import annotations

from typing import Any

from llamamgr.wire import (
    anthropic_request,
    embeddings,
    ollama_models,
    ollama_options,
    ollama_request,
    openai_chat,
    openai_completions,
    rerank,
    responses_request,
)
from llamamgr.wire.openapi import Body, Schema, ref
from llamamgr.wire.responses_items import HISTORY_OF_SERVERS


def _or_null(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


_OBJECTS: Schema = _or_null("array", items={"type": "object"})
_TOOLS: Schema = _or_null(
    "array",
    items={
        "type": ["object", "null"],
        "properties": {
            "type": _or_null("string"),
            "function": _or_null(
                "object",
                properties={
                    "name": _or_null("string"),
                    "description": _or_null("string"),
                    "parameters": _or_null("object"),
                },
            ),
        },
    },
)
_KEEP_ALIVE: Schema = {
    "type": ["number", "string", "null"],
    "description": 'Seconds, or a Go duration ("5m"); negative is for ever, 0 unloads at once.',
}
_FORMAT: Schema = {
    "description": '"json", or a JSON schema that the answer must fit.',
    "anyOf": [{"enum": ["json", "", None]}, {"type": "object"}],
}
_THINK: Schema = {"enum": [True, False, "low", "medium", "high", "max", None]}
_TOP_LOGPROBS: Schema = _or_null("integer", minimum=0, maximum=20)
_BASE64: Schema = _or_null("array", items={"type": "string", "contentEncoding": "base64"})
_INFERENCE: dict[str, Schema] = {
    "model": ref("ModelName"),
    "format": _FORMAT,
    "keep_alive": _KEEP_ALIVE,
    "options": ollama_options.schema(),
    "think": _THINK,
    "top_logprobs": _TOP_LOGPROBS,
}
_TOOL_CHOICE: Schema = {
    "description": "none, auto, required, or an object that names a function.",
    "anyOf": [{"enum": ["none", "auto", "required", "any", None]}, {"type": "object"}],
}
# what the engine reads itself; more of its own fields pass too
_SAMPLING: dict[str, Schema] = {
    "temperature": _or_null("number", minimum=0),
    "top_p": _or_null("number", minimum=0, maximum=1),
    "top_k": _or_null("integer"),
    "min_p": _or_null("number", minimum=0, maximum=1),
    "seed": _or_null("integer"),
    "stop": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
    "presence_penalty": _or_null("number"),
    "frequency_penalty": _or_null("number"),
    "repeat_penalty": _or_null("number", minimum=0),
    "logit_bias": _or_null("object", additionalProperties={"type": "number"}),
    "grammar": _or_null("string"),
    "cache_prompt": _or_null("boolean"),
}
_TEXT_OR_TOKENS: Schema = {
    "description": "A text, token ids, or a list of either.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": "string"}},
        {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}},
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}},
        },
    ],
}
_NO_LESS_THAN_ONE: Schema = {"type": "integer", "minimum": 1}
_HI = [{"role": "user", "content": "hello"}]

_BLOCKS = ["text", "image", "document", "search_result", "thinking", "tool_use", "tool_result"]

GENERATE = Body(
    "GenerateRequest",
    ollama_request.WireGenerate,
    ("model",),
    {**_INFERENCE, "images": _BASE64},
    example={"model": "selftest", "prompt": "hello"},
)
CHAT = Body(
    "ChatRequest",
    ollama_request.WireChat,
    ("model",),
    {
        **_INFERENCE,
        "tools": _TOOLS,
        "Message.images": _BASE64,
        "Function.arguments": _or_null("object"),
    },
    example={"model": "selftest", "messages": _HI},
)
SHOW = Body(
    "ShowRequest", ollama_request.WireShow, fields={"model": ref("ModelName")}, example={"model": "selftest"}
)
CREATE = Body(
    "CreateRequest",
    ollama_models.WireCreate,
    ("model",),
    {"from": ref("ModelName"), "parameters": ollama_options.schema()},
    example={"model": "mine", "from": "selftest"},
)
COPY = Body("CopyRequest", ollama_models.WireCopy, ("source", "destination"), {"source": ref("ModelName")})
DELETE = Body("DeleteRequest", ollama_models.WireTransfer, fields={"model": ref("ModelName")})
PULL = Body("PullRequest", ollama_models.WireTransfer, fields={"model": ref("ModelName")})
PUSH = Body("PushRequest", ollama_models.WireTransfer, fields={"model": ref("ModelName")})
EMBED = Body(
    "EmbedRequest",
    embeddings.WireEmbed,
    ("model",),
    {
        "model": ref("ModelName"),
        "keep_alive": _KEEP_ALIVE,
        "options": ollama_options.schema(),
        "input": {"type": ["string", "array", "null"], "items": {"type": "string"}},
        "dimensions": _or_null("integer"),
    },
)
EMBEDDINGS = Body(
    "EmbeddingRequest",
    embeddings.WireLegacy,
    ("model",),
    {"model": ref("ModelName"), "keep_alive": _KEEP_ALIVE, "options": ollama_options.schema()},
)
CHAT_COMPLETION = Body(
    "ChatCompletionRequest",
    openai_chat.Wire,
    ("model", "messages"),
    {
        "model": ref("ModelName"),
        "messages": {"type": "array", "minItems": 1, "items": ref("ChatCompletionRequest.Turn")},
        "tools": _OBJECTS,
        "tool_choice": _TOOL_CHOICE,
        "reasoning_effort": {"enum": [*openai_chat.EFFORTS, None]},
        "reasoning": _or_null("object"),
        "functions": _OBJECTS,
        "function_call": {"anyOf": [{"enum": ["auto", "none", None]}, {"type": "object"}]},
        "logprobs": _or_null("boolean"),
        "top_logprobs": _TOP_LOGPROBS,
        "stop": _SAMPLING["stop"],
        "modalities": _or_null("array", items={"enum": ["text"]}),
        "web_search_options": {"type": "null"},
        "Turn.function_call": _or_null("object"),
    },
    {
        **{name: schema for name, schema in _SAMPLING.items() if name != "stop"},
        "max_tokens": _or_null("integer", minimum=-1),
        "max_completion_tokens": _or_null("integer", minimum=-1),
        "n": _or_null("integer", minimum=1),
        "parallel_tool_calls": _or_null("boolean"),
        "Turn.role": {"type": "string"},
        "Turn.name": _or_null("string"),
        "Turn.tool_call_id": _or_null("string"),
        "stream_options": _or_null("object", properties={"include_usage": _or_null("boolean")}),
    },
    example={"model": "selftest", "messages": _HI},
)
COMPLETION = Body(
    "CompletionRequest",
    openai_completions.Wire,
    ("model", "prompt"),
    {
        "model": ref("ModelName"),
        "prompt": _TEXT_OR_TOKENS,
        "logprobs": _TOP_LOGPROBS,
        "n": _or_null("integer", minimum=0),
    },
    _SAMPLING,
    example={"model": "selftest", "prompt": "hello", "max_tokens": 8},
)
V1_EMBEDDINGS = Body(
    "V1EmbeddingsRequest",
    embeddings.WireV1,
    ("model", "input"),
    {
        "model": ref("ModelName"),
        "input": _TEXT_OR_TOKENS,
        "encoding_format": {"enum": ["float", "base64", "", None]},
        "dimensions": _or_null("integer", minimum=0),
    },
)
_RESPONSE: dict[str, Schema] = {
    "model": ref("ModelName"),
    "tools": _OBJECTS,
    "tool_choice": _TOOL_CHOICE,
    "max_output_tokens": _or_null("integer", minimum=1),
    "metadata": _or_null("object", maxProperties=16, additionalProperties={"type": "string"}),
    "top_logprobs": _TOP_LOGPROBS,
    "truncation": {"enum": ["auto", "disabled", None]},
    "Item.type": {
        "enum": [
            *("message", "reasoning", "item_reference", "function_call", "function_call_output"),
            *("custom_tool_call", "custom_tool_call_output", *sorted(HISTORY_OF_SERVERS), None),
        ]
    },
    "Item.role": {"enum": ["user", "assistant", "system", "developer", None]},
}
RESPONSE = Body(
    "ResponsesRequest",
    responses_request.Wire,
    ("model", "input"),
    _RESPONSE,
    _SAMPLING,
    example={"model": "selftest", "input": "hello"},
)
RESPONSE_COUNT = Body(
    "ResponsesCountRequest",
    responses_request.Wire,
    fields=_RESPONSE,
    example={"model": "selftest", "input": "hello"},
)
RERANK = Body(
    "RerankRequest",
    rerank.Wire,
    ("query",),
    {"model": ref("ModelName"), "top_n": _or_null("integer", minimum=1)},
)
MESSAGES = Body(
    "MessagesRequest",
    anthropic_request.Wire,
    ("model", "max_tokens", "messages"),
    {
        "model": ref("ModelName"),
        "max_tokens": _NO_LESS_THAN_ONE,
        "messages": {"type": "array", "minItems": 1, "items": ref("MessagesRequest.Turn")},
        "Turn.role": {"enum": ["user", "assistant", "system"]},
        "Block.type": {"enum": _BLOCKS},
        "Tool.input_schema": _or_null("object"),
        "Choice.type": {"enum": ["auto", "any", "tool", "none"]},
        "Thinking.type": {"enum": ["enabled", "disabled", "adaptive"]},
    },
    example={"model": "selftest", "max_tokens": 16, "messages": _HI},
)
COUNT = Body(
    "CountRequest",
    anthropic_request.Wire,
    ("model", "messages"),
    {
        "model": ref("ModelName"),
        "messages": {"type": "array", "minItems": 1, "items": ref("CountRequest.Turn")},
        "Turn.role": {"enum": ["user", "assistant", "system"]},
        "Block.type": {"enum": _BLOCKS},
        "Tool.input_schema": _or_null("object"),
        "Choice.type": {"enum": ["auto", "any", "tool", "none"]},
        "Thinking.type": {"enum": ["enabled", "disabled", "adaptive"]},
    },
    example={"model": "selftest", "messages": _HI},
)
