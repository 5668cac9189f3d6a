"""Reranking in the forms of Jina, Cohere and Hugging Face's text-embeddings-inference (TEI).

Jina and Cohere ask with ``documents`` and get ``results`` with ``relevance_score``; one answer has what both expect.
TEI asks with ``texts``, names no model, and gets a bare list with ``score``. The engine's scores are those of the
model's head, but for some architectures, whose probabilities it tells; TEI's clients expect them between 0 and 1 unless they
ask for ``raw_scores``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.engine import EngineCall
from llamamgr.wire.errors import DialectError, ProtocolError

# whose scores the engine has put through a softmax (llama.cpp src/llama-graph.cpp, build_pooling)
_OF_PROBABILITIES = frozenset({"qwen3", "qwen3vl"})


class RerankRequest(msgspec.Struct, frozen=True):
    """``model`` is empty where the form has none; ``most`` is how many results are wanted."""

    model: str
    query: str
    documents: tuple[str, ...]
    most: int
    with_text: bool = False
    is_tei: bool = False
    raw_scores: bool = True

    def call(self) -> EngineCall:
        body = {"query": self.query, "documents": self.documents}
        return EngineCall("POST", "/v1/rerank", msgspec.json.encode(body))


class Scores(msgspec.Struct, frozen=True):
    """(place of the document, score), best first, and the tokens read."""

    ranked: tuple[tuple[int, float], ...]
    tokens: int


class Wire(msgspec.Struct):
    model: str | None = None
    query: str | None = None
    documents: list[str | dict[str, Any]] | None = None
    texts: list[str] | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    raw_scores: bool | None = None


class _Result(msgspec.Struct):
    index: int
    relevance_score: float


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Answer(msgspec.Struct):
    results: list[_Result]
    usage: _Usage = msgspec.field(default_factory=_Usage)


def parse(body: bytes) -> RerankRequest:
    """``DialectError`` 400 for what cannot be asked."""
    if not body.strip():
        raise DialectError(400, "EOF")
    wire = golang.decode(body, Wire, "openai.RerankRequest", {})
    if not wire.query:
        raise DialectError(400, "query is required", param="query")
    given: list[str | dict[str, Any]] = [*wire.texts] if wire.texts else wire.documents or []
    if not given:
        raise DialectError(400, "documents must be a list with at least one element", param="documents")
    if wire.top_n is not None and wire.top_n < 1:
        raise DialectError(400, "top_n must be at least 1", param="top_n")
    is_tei = wire.texts is not None
    return RerankRequest(
        model=wire.model or "",
        query=wire.query,
        documents=tuple(_text(one) for one in given),
        most=min(wire.top_n or len(given), len(given)),
        with_text=bool(wire.return_text if is_tei else wire.return_documents),
        is_tei=is_tei,
        raw_scores=bool(wire.raw_scores) if is_tei else True,
    )


def read(request: RerankRequest, body: bytes, arch: str = "") -> Scores:
    """The engine's answer to ``request.call()``, asked of a model of that architecture; ``ProtocolError`` when it is none."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the engine sent what cannot be read: {error}") from None
    if sorted(one.index for one in answer.results) != list(range(len(request.documents))):
        raise ProtocolError(f"the engine scored {len(answer.results)} of {len(request.documents)} documents")
    ranked = sorted(answer.results, key=lambda one: -one.relevance_score)[: request.most]
    is_told = request.raw_scores or arch in _OF_PROBABILITIES
    scores = [
        (one.index, one.relevance_score if is_told else _sigmoid(one.relevance_score)) for one in ranked
    ]
    return Scores(tuple(scores), answer.usage.total_tokens)


def answer(request: RerankRequest, scores: Scores, id: str) -> bytes:  # noqa: A002 - the field's own name
    """The answer in the form that was asked in."""
    if request.is_tei:
        rows = [
            {"index": place, "score": score, **_shown(request, place, "text")}
            for place, score in scores.ranked
        ]
        return msgspec.json.encode(rows)
    results = [
        {"index": place, "relevance_score": score, **_shown(request, place, "document")}
        for place, score in scores.ranked
    ]
    usage = {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return msgspec.json.encode(
        {"id": id, "model": request.model, "object": "list", "usage": usage, "results": results, "meta": meta}
    )


def _shown(request: RerankRequest, place: int, field: str) -> Mapping[str, object]:
    if not request.with_text:
        return {}
    text = request.documents[place]
    return {field: text if request.is_tei else {"text": text}}


def _text(document: str | Mapping[str, Any]) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        raise DialectError(400, 'a document must be a string or {"text": string}', param="documents")
    return text


def _sigmoid(value: float) -> float:
    if value < -700:
        return 0.0  # beyond what exp can give
    return 1 / (1 + math.exp(-value))
