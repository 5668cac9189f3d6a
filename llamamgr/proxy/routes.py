"""Routes of OpenAI's, Anthropic's and llama.cpp's APIs, as one table: method, path, handler.

How clients see each route stands in ``operations``.
"""

from __future__ import annotations

from aiohttp.typedefs import Handler

from llamamgr.proxy import (
    anthropic,
    completions,
    description,
    embeddings,
    engine_routes,
    exposition,
    openai,
    passage,
    rerank,
    responses,
    system,
    transcriptions,
)

_ENGINE_READS = ("/props", "/slots", "/lora-adapters")
_ENGINE_ASKS = ("/tokenize", "/detokenize", "/apply-template", "/infill", "/completion", "/lora-adapters")

V1_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/v1/models", openai.models),
    ("GET", "/v1/models/{name:(?s:.+)}", openai.model),
    ("POST", "/v1/chat/completions", passage.chat_completions),
    ("POST", "/v1/completions", completions.completions),
    ("POST", "/v1/embeddings", embeddings.v1_embeddings),
    ("POST", "/api/embed", embeddings.embed),
    ("POST", "/api/embeddings", embeddings.legacy_embeddings),
    ("POST", "/v1/responses", responses.create),
    ("POST", "/v1/responses/input_tokens", responses.input_tokens),
    ("GET", "/v1/responses/{id}", responses.retrieve),
    ("DELETE", "/v1/responses/{id}", responses.delete),
    ("GET", "/v1/responses/{id}/input_items", responses.input_items),
    ("POST", "/v1/responses/{id}/cancel", responses.cancel),
    ("POST", "/v1/audio/transcriptions", transcriptions.transcriptions),
    ("*", "/v1/images", openai.no_images),
    ("*", "/v1/images/{rest:(?s:.*)}", openai.no_images),
    *(("POST", path, rerank.rerank) for path in ("/v1/rerank", "/v1/reranking", "/v2/rerank", "/rerank")),
    ("POST", "/v1/messages", anthropic.messages),
    ("POST", "/v1/messages/count_tokens", anthropic.count_tokens),
    *(("GET", path, engine_routes.engine) for path in _ENGINE_READS),
    *(("POST", path, engine_routes.engine) for path in _ENGINE_ASKS),
    ("*", "/upstream/{rest:(?s:.+)}", engine_routes.upstream),
    ("GET", "/api/system/status", system.status),
    ("GET", "/openapi.json", description.describe),
    ("GET", "/metrics", exposition.metrics),
)
