"""Every public route as clients see it: the table that ``/openapi.json`` is made of. A test holds it against the routes.

Imported only when somebody asks for the description.
"""

from __future__ import annotations

import msgspec

from llamamgr.proxy.system import Status
from llamamgr.wire import openapi_bodies as bodies
from llamamgr.wire.openapi import METHODS, Answer, Content, Dialect, Operation, Parameter, ref
from llamamgr.wire.openapi_answers import (
    BOOLEAN,
    COMPONENTS,
    NUMBER,
    OBJECT,
    STRING,
    fields,
    json,
    json_or_events,
    json_or_lines,
)

# 401 and 429 belong to servers with keys; 403 is a stranger's Origin or Host too, then without a body
_KEYS = (401, 403, 429)
_LOOKS = (*_KEYS, 400, 404)
_ASKS = (*_LOOKS, 413, 502, 503)
_CHANGES = (*_KEYS, 400, 404, 409, 413, 502, 503, 507)
_SYSTEM = msgspec.json.schema_components((Status,), ref_template="#/components/schemas/{name}")[1]
SCHEMAS = {**COMPONENTS, **_SYSTEM}

_RUNS = Answer(200, "Ollama is running", (Content("text/plain", STRING),))
_THERE = Answer(200, "It is there")
_EMPTY = Answer(200, "Done")
_ENGINE = Answer(200, "What the engine answers, as it is", (Content("*/*"),))
_VERSION = Parameter("header", "anthropic-version", "Asks for Anthropic's form")
_MODEL = Parameter(
    "query", "model", "Needed unless the body names one or only one is loaded", ref("ModelName")
)
_PAGE = (
    _VERSION,
    Parameter("query", "limit", "Of Anthropic's form", {"type": "integer", "minimum": 1, "maximum": 1000}),
    Parameter("query", "after_id", "Of Anthropic's form"),
    Parameter("query", "before_id", "Of Anthropic's form"),
)
_ITEMS = (
    Parameter("query", "limit", "20 unless told", {"type": "integer", "minimum": 1, "maximum": 100}),
    Parameter("query", "order", "The newest first unless told", {"enum": ["asc", "desc"]}),
    Parameter("query", "after", "The id of the item before the first one wanted"),
)
_DIGEST = Parameter(
    "path", "digest", "sha256:… or sha256-…", {"type": "string", "pattern": "^sha256[:-][0-9a-fA-F]{64}$"}
)


def _both(path: str, told: str, answer: Answer) -> tuple[Operation, ...]:
    head = Answer(200, answer.told)
    return (
        Operation("get", path, told, "ollama", (answer,), bare=(403,)),
        Operation("head", path, told, "ollama", (head,), bare=(403,)),
    )


def _engine(method: str, path: str, told: str) -> Operation:
    """An endpoint of the engine's own: its refusals pass as they are too."""
    body = Content("application/json", fields({"model": ref("ModelName")})) if method == "post" else None
    return Operation(
        method, path, told, "llama.cpp", (_ENGINE,), (*_ASKS, 500, 501), upload=body, parameters=(_MODEL,)
    )


def _refused(path: str, told: str, dialect: Dialect) -> tuple[Operation, ...]:
    """What is there to say clearly that it is not served."""
    return tuple(
        Operation(
            method,
            path,
            told,
            dialect,
            (),
            () if method == "head" else (501, 413),
            bare=(501,) if method == "head" else (),
        )
        for method in METHODS
    )


def _upstream() -> tuple[Operation, ...]:
    told = "Anything else of an engine: the path begins with the name of its model"
    other = Answer(200, "What the engine answers, as it is", (Content("*/*"),))
    return tuple(
        Operation(
            method,
            "/upstream/{rest}",
            told,
            "llama.cpp",
            (),
            upload=Content("*/*") if method in ("post", "put", "patch") else None,
            other=other,
        )
        for method in METHODS
    )


OPERATIONS: tuple[Operation, ...] = (
    *_both("/", "Says that the server runs", _RUNS),
    *_both("/api/version", "The version", json("Version")),
    *_both("/api/tags", "The models there are", json("Tags")),
    Operation(
        "get",
        "/health",
        "Whether requests are taken",
        "ollama",
        (json("Health"), Answer(503, "Stopping", (Content("application/json"),))),
    ),
    Operation("get", "/openapi.json", "This description", "ollama", (json(OBJECT),)),
    Operation("get", "/api/ps", "The models that are loaded", "ollama", (json("Running"),), _KEYS),
    Operation(
        "get",
        "/api/status",
        "Whether there is a cloud: there is none",
        "ollama",
        (json("CloudStatus"),),
        _KEYS,
    ),
    Operation("get", "/api/system/status", "What the server does", "ollama", (json("Status"),), _KEYS),
    Operation(
        "post", "/api/show", "One model in full", "ollama", (json("Shown"),), (*_LOOKS, 413), bodies.SHOW
    ),
    Operation(
        "post",
        "/api/generate",
        "Goes on with a prompt",
        "ollama",
        (json_or_lines("Generated", "Generated"),),
        _ASKS,
        bodies.GENERATE,
    ),
    Operation(
        "post",
        "/api/chat",
        "Goes on with a conversation",
        "ollama",
        (json_or_lines("Said", "Said"),),
        _ASKS,
        bodies.CHAT,
    ),
    Operation(
        "post", "/api/embed", "Vectors of texts", "ollama", (json("Embedded"),), (*_ASKS, 501), bodies.EMBED
    ),
    Operation(
        "post",
        "/api/embeddings",
        "The vector of a text, in the older form",
        "ollama",
        (json("Embedding"),),
        (*_ASKS, 501),
        bodies.EMBEDDINGS,
    ),
    Operation(
        "post",
        "/api/create",
        "Makes a model of another one, or of files",
        "ollama",
        (json_or_lines("Progress", "Progress"),),
        _CHANGES,
        bodies.CREATE,
    ),
    Operation("post", "/api/copy", "Gives a model another name", "ollama", (_EMPTY,), _CHANGES, bodies.COPY),
    Operation("delete", "/api/delete", "Removes a model", "ollama", (_EMPTY,), _CHANGES, bodies.DELETE),
    Operation(
        "head",
        "/api/blobs/{digest}",
        "Whether a blob is there",
        "ollama",
        (_THERE,),
        parameters=(_DIGEST,),
        bare=(400, 401, 403, 404, 429),
    ),
    Operation(
        "post",
        "/api/blobs/{digest}",
        "Takes a blob, which must be what its digest says",
        "ollama",
        (Answer(200, "It was there"), Answer(201, "It is there now")),
        (*_KEYS, 400, 404, 507),
        upload=Content("application/octet-stream"),
        parameters=(_DIGEST,),
    ),
    Operation(
        "post",
        "/api/pull",
        "Gets a model from a registry or from Hugging Face",
        "ollama",
        (json_or_lines("Progress", "Progress"),),
        _CHANGES,
        bodies.PULL,
    ),
    Operation("post", "/api/push", "Is not served", "ollama", (), (*_LOOKS, 413, 501), bodies.PUSH),
    Operation(
        "get",
        "/v1/models",
        "The models there are",
        "openai",
        (json("Models"),),
        (*_KEYS, 400),
        parameters=_PAGE,
        failure="ModelsError",
    ),
    Operation(
        "get",
        "/v1/models/{name}",
        "One model, slashes in its name and all",
        "openai",
        (
            json(
                {
                    "anyOf": [
                        ref("Model"),
                        ref("AnthropicModel"),
                    ]
                }
            ),
        ),
        _LOOKS,
        parameters=(_VERSION, Parameter("path", "name", "", ref("ModelName"))),
        failure="ModelsError",
    ),
    Operation(
        "post",
        "/v1/chat/completions",
        "Goes on with a conversation; fields that are not named here pass to the engine",
        "openai",
        (json_or_events("ChatCompletion"),),
        _ASKS,
        bodies.CHAT_COMPLETION,
    ),
    Operation(
        "post",
        "/v1/completions",
        "Goes on with prompts as they are",
        "openai",
        (json_or_events("TextCompletion"),),
        (*_ASKS, 501),
        bodies.COMPLETION,
    ),
    Operation(
        "post",
        "/v1/embeddings",
        "Vectors of texts",
        "openai",
        (json("V1Embeddings"),),
        (*_ASKS, 501),
        bodies.V1_EMBEDDINGS,
    ),
    Operation(
        "post",
        "/v1/responses",
        "Goes on with items",
        "openai",
        (json_or_events("Response"),),
        _ASKS,
        bodies.RESPONSE,
    ),
    Operation(
        "post",
        "/v1/responses/input_tokens",
        "How long a prompt is",
        "openai",
        (json("InputTokens"),),
        _ASKS,
        bodies.RESPONSE_COUNT,
    ),
    Operation(
        "get",
        "/v1/responses/{id}",
        "An answer of before",
        "openai",
        (json("Response"),),
        _LOOKS,
        parameters=(
            Parameter("query", "stream", "Is not served: only background ones can be", {"type": "boolean"}),
        ),
    ),
    Operation(
        "delete", "/v1/responses/{id}", "Forgets an answer", "openai", (json("ResponseDeleted"),), _LOOKS
    ),
    Operation(
        "get",
        "/v1/responses/{id}/input_items",
        "What an answer was made of",
        "openai",
        (json("ResponseItems"),),
        _LOOKS,
        parameters=_ITEMS,
    ),
    Operation(
        "post", "/v1/responses/{id}/cancel", "Is refused: there are no background ones", "openai", (), _LOOKS
    ),
    Operation(
        "post",
        "/v1/audio/transcriptions",
        "What is said in a recording",
        "openai",
        (
            Answer(
                200,
                "The text",
                (
                    Content("application/json", ref("Transcription")),
                    Content("text/plain", STRING),
                    Content("text/event-stream", STRING),
                ),
            ),
        ),
        _ASKS,
        upload=Content(
            "multipart/form-data",
            {
                "type": "object",
                "required": ["model", "file"],
                "properties": {
                    "model": ref("ModelName"),
                    "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                    "response_format": {"enum": ["json", "text"]},
                    "stream": BOOLEAN,
                    "language": STRING,
                    "prompt": STRING,
                    "temperature": NUMBER,
                },
            },
        ),
    ),
    *_refused("/v1/images", "Is not served", "openai"),
    *_refused("/v1/images/{rest}", "Is not served", "openai"),
    *(
        Operation(
            "post",
            path,
            "Documents by how well they fit a query",
            "openai",
            (json("Ranked"),),
            (*_ASKS, 501),
            bodies.RERANK,
        )
        for path in ("/v1/rerank", "/v1/reranking", "/v2/rerank", "/rerank")
    ),
    Operation(
        "post",
        "/v1/messages",
        "Goes on with a conversation",
        "anthropic",
        (json_or_events("Message"),),
        _ASKS,
        bodies.MESSAGES,
    ),
    Operation(
        "post",
        "/v1/messages/count_tokens",
        "How long a prompt is",
        "anthropic",
        (json("TokenCount"),),
        _ASKS,
        bodies.COUNT,
    ),
    _engine("get", "/props", "What an engine is set to"),
    _engine("get", "/slots", "What the slots of an engine do"),
    _engine("get", "/lora-adapters", "The adapters of an engine"),
    _engine(
        "get", "/metrics", "What llamamgr has counted, for Prometheus; with a model, what its engine has"
    ),
    _engine("post", "/tokenize", "The tokens of a text"),
    _engine("post", "/detokenize", "The text of tokens"),
    _engine("post", "/apply-template", "The prompt that a conversation becomes"),
    _engine("post", "/infill", "What stands between two texts"),
    _engine("post", "/completion", "Goes on with a prompt, in the engine's own form"),
    _engine("post", "/lora-adapters", "Sets how much the adapters count"),
    *_upstream(),
)
