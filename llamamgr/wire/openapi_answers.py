"""What comes back, as JSON schemas: only what a client can rely on."""

from __future__ import annotations

from typing import Any

from llamamgr.wire.openapi import Answer, Content, Schema, ref

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
_COUNT_OR_NULL: Schema = {"type": ["integer", "null"]}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def fields(optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """An object with these fields; it may have more."""
    return {
        "type": "object",
        "required": [*required],
        "properties": {**required, **(optional or {})},
    }


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def json(schema: Schema | str, told: str = "The answer") -> Answer:
    """An answer in JSON; a text is the name of a component."""
    return Answer(
        200, told, (Content("application/json", ref(schema) if isinstance(schema, str) else schema),)
    )


def json_or_lines(
    schema: str, lines: str, told: str = "The answer, whole or as one JSON object a line"
) -> Answer:
    whole, line = Content("application/json", ref(schema)), Content("application/x-ndjson", ref(lines))
    return Answer(200, told, (line, whole))


def json_or_events(schema: str, told: str = "The answer, whole or as server-sent events") -> Answer:
    return Answer(200, told, (Content("application/json", ref(schema)), Content("text/event-stream")))


_TOKEN = fields({"bytes": many(COUNT)}, token=STRING, logprob=NUMBER)
_LOGPROBS = many(fields({"bytes": many(COUNT), "top_logprobs": many(_TOKEN)}, token=STRING, logprob=NUMBER))
_METRICS: dict[str, Schema] = {
    "done_reason": {"enum": ["stop", "length", "load", "unload"]},
    "total_duration": COUNT,
    "load_duration": COUNT,
    "prompt_eval_count": COUNT,
    "prompt_eval_duration": COUNT,
    "eval_count": COUNT,
    "eval_duration": COUNT,
    "logprobs": _LOGPROBS,
}
_PROMPT = fields({"image_count": COUNT}, rendered_template=STRING)
_CALL = fields({"id": STRING}, function=fields({"index": COUNT}, name=STRING, arguments=OBJECT))
_SAID = fields(
    {"thinking": STRING, "tool_calls": many(_CALL)}, role={"enum": ["assistant", ""]}, content=STRING
)
_DETAILS = fields(
    parent_model=STRING,
    format={"const": "gguf"},
    family=STRING,
    families={"type": ["array", "null"], "items": STRING},
    parameter_size=STRING,
    quantization_level=STRING,
)
_USAGE = fields(
    {"prompt_tokens_details": OBJECT},
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    total_tokens=COUNT,
)
_CREATED = {"type": "string", "format": "date-time"}
_VECTOR = many(NUMBER)


def _listed(**entry: Schema) -> Schema:
    return fields(object={"const": "list"}, data=many(fields(**entry)))


COMPONENTS: dict[str, Any] = {
    "ModelName": {
        "type": "string",
        "minLength": 1,
        "description": "[host/][namespace/]model[:tag], case ignored; `/api/tags` lists them.",
    },
    "OllamaError": fields(error=STRING),
    "OpenAIError": fields(error=fields(message=STRING, type=STRING, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL)),
    "EngineError": fields(error=fields({"code": {}}, message=STRING, type=STRING)),
    "AnthropicError": fields(
        type={"const": "error"}, error=fields(type=STRING, message=STRING), request_id=STRING
    ),
    "ModelsError": {"anyOf": [ref("OpenAIError"), ref("AnthropicError")]},
    "Version": fields(version=STRING),
    "Tags": fields(
        models=many(
            fields(
                {"capabilities": many(STRING)},
                name=STRING,
                model=STRING,
                modified_at=_CREATED,
                size=COUNT,
                digest=STRING,
                details=_DETAILS,
            )
        )
    ),
    "Running": fields(
        models=many(
            fields(
                name=STRING,
                model=STRING,
                size=COUNT,
                digest=STRING,
                details=_DETAILS,
                expires_at=STRING,
                size_vram=COUNT,
                context_length=COUNT,
            )
        )
    ),
    "Shown": fields(
        {
            **dict.fromkeys(("license", "parameters", "system"), STRING),
            "messages": many(OBJECT),
            "projector_info": OBJECT,
        },
        modelfile=STRING,
        template=STRING,
        details=_DETAILS,
        model_info=OBJECT,
        tensors=many(fields(name=STRING, type=STRING, shape=many(COUNT))),
        capabilities=many(STRING),
        modified_at=_CREATED,
    ),
    "Generated": fields(
        {"thinking": STRING, "context": many(COUNT), "_debug_info": _PROMPT, **_METRICS},
        model=STRING,
        created_at=_CREATED,
        response=STRING,
        done=BOOLEAN,
    ),
    "Said": fields(
        {"_debug_info": _PROMPT, **_METRICS}, model=STRING, created_at=_CREATED, message=_SAID, done=BOOLEAN
    ),
    "Progress": {
        "anyOf": [
            fields({"digest": STRING, "total": COUNT, "completed": COUNT}, status=STRING),
            ref("OllamaError"),
        ]
    },
    "Embedded": fields(
        {"total_duration": COUNT, "load_duration": COUNT, "prompt_eval_count": COUNT},
        model=STRING,
        embeddings=many(_VECTOR),
    ),
    "Embedding": fields(embedding=_VECTOR),
    "CloudStatus": fields(cloud=fields(disabled=BOOLEAN, source=STRING)),
    "ChatCompletion": fields(
        {"created": COUNT, "usage": _USAGE, "system_fingerprint": STRING},
        id=STRING,
        object={"const": "chat.completion"},
        model=STRING,
        choices=many(
            fields(
                index=COUNT,
                message=fields(
                    {
                        "content": _TEXT_OR_NULL,
                        "reasoning": STRING,
                        "reasoning_content": STRING,
                        "tool_calls": many(OBJECT),
                    },
                    role={"const": "assistant"},
                ),
                finish_reason={"enum": ["stop", "length", "tool_calls"]},
            )
        ),
    ),
    "TextCompletion": fields(
        id=STRING,
        object={"const": "text_completion"},
        created=COUNT,
        model=STRING,
        choices=many(fields(text=STRING, index=COUNT, finish_reason={"enum": ["stop", "length"]})),
        usage=_USAGE,
    ),
    "V1Embeddings": fields(
        object={"const": "list"},
        model=STRING,
        data=many(fields(object={"const": "embedding"}, index=COUNT, embedding={"anyOf": [_VECTOR, STRING]})),
        usage=fields(prompt_tokens=COUNT, total_tokens=COUNT),
    ),
    "Model": fields(id=STRING, object={"const": "model"}, created=COUNT, owned_by=STRING, meta=OBJECT),
    "AnthropicModel": fields(
        type={"const": "model"},
        id=STRING,
        display_name=STRING,
        created_at=_CREATED,
        lifecycle={"const": "active"},
        max_input_tokens=_COUNT_OR_NULL,
        max_tokens=_COUNT_OR_NULL,
        capabilities=OBJECT,
    ),
    "Models": {
        "anyOf": [
            fields(object={"const": "list"}, data=many(ref("Model"))),
            fields(
                data=many(ref("AnthropicModel")),
                has_more=BOOLEAN,
                first_id=_TEXT_OR_NULL,
                last_id=_TEXT_OR_NULL,
            ),
        ]
    },
    "Response": fields(
        {"usage": {"type": ["object", "null"]}, "incomplete_details": {"type": ["object", "null"]}},
        id=STRING,
        object={"const": "response"},
        created_at=COUNT,
        status={"enum": ["completed", "incomplete"]},
        model=STRING,
        output=many(fields(type=STRING, id=STRING)),
    ),
    "InputTokens": fields(object={"const": "response.input_tokens"}, input_tokens=COUNT),
    "ResponseItems": fields(
        object={"const": "list"},
        data=many(fields(id=STRING, type=STRING)),
        first_id=_TEXT_OR_NULL,
        last_id=_TEXT_OR_NULL,
        has_more=BOOLEAN,
    ),
    "ResponseDeleted": fields(id=STRING, object={"const": "response"}, deleted={"const": True}),
    "Transcription": fields(text=STRING),
    "Ranked": {
        "anyOf": [
            fields(results=many(fields(index=COUNT, relevance_score=NUMBER)), model=STRING),
            many(fields(index=COUNT, score=NUMBER)),
        ]
    },
    "Message": fields(
        id=STRING,
        type={"const": "message"},
        role={"const": "assistant"},
        model=STRING,
        content=many(fields(type={"enum": ["text", "thinking", "tool_use"]})),
        stop_reason={
            "enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
        },
        stop_sequence=_TEXT_OR_NULL,
        usage=fields(input_tokens=COUNT, output_tokens=COUNT),
    ),
    "TokenCount": fields(input_tokens=COUNT),
    "Health": fields(status=STRING),
}
