"""Reranking in the forms of Jina, Cohere and TEI."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamamgr.wire import rerank
from llamamgr.wire.errors import DialectError, ProtocolError
from llamamgr.wire.rerank import RerankRequest

ENGINE = json.dumps(
    {
        "results": [{"index": 0, "relevance_score": -2.0}, {"index": 1, "relevance_score": 3.0}],
        "usage": {"total_tokens": 9},
    }
).encode()


def parsed(**fields: Any) -> RerankRequest:
    return rerank.parse(json.dumps({"query": "q", **fields}).encode())


def answered(asked: RerankRequest) -> Any:
    return json.loads(rerank.answer(asked, rerank.read(asked, ENGINE), "id-1"))


def test_jina_and_cohere_find_what_they_expect_best_first() -> None:
    told = answered(parsed(model="m", documents=["a", {"text": "b"}], return_documents=True))
    assert [(row["index"], row["relevance_score"]) for row in told["results"]] == [(1, 3.0), (0, -2.0)]
    assert told["results"][0]["document"] == {"text": "b"}
    assert (told["id"], told["model"], told["object"]) == ("id-1", "m", "list")
    assert told["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert told["meta"]["billed_units"]


def test_only_so_many_as_asked_for_come_back_and_documents_only_when_asked_for() -> None:
    (row,) = answered(parsed(model="m", documents=["a", "b"], top_n=1))["results"]
    assert row == {"index": 1, "relevance_score": 3.0}


def test_tei_gets_a_bare_list_with_scores_between_0_and_1() -> None:
    asked = parsed(texts=["a", "b"], return_text=True)
    assert asked.model == ""
    told = answered(asked)
    assert [row["text"] for row in told] == ["b", "a"]
    assert all(0 < row["score"] < 1 for row in told)
    assert [row["score"] for row in answered(parsed(texts=["a", "b"], raw_scores=True))] == [3.0, -2.0]


@pytest.mark.parametrize("arch", ["qwen3", "qwen3vl"])
def test_what_the_engine_tells_as_a_probability_stays_one(arch: str) -> None:
    asked = parsed(texts=["a", "b"])
    rows = [{"index": 0, "relevance_score": 0.01}, {"index": 1, "relevance_score": 0.99}]
    scores = rerank.read(asked, json.dumps({"results": rows}).encode(), arch)
    assert scores.ranked == ((1, 0.99), (0, 0.01))


def test_the_engine_is_asked_once() -> None:
    call = parsed(documents=["a", {"text": "b"}]).call()
    assert json.loads(call.body) == {"query": "q", "documents": ["a", "b"]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": [{"title": "x"}]}, "documents"),
        ({"documents": ["a"], "top_n": 0}, "top_n"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(DialectError) as refused:
        parsed(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize("body", [b"", b'{"results":[]}', b'{"results":[{"index":0,"relevance_score":1}]}'])
def test_an_answer_that_does_not_fit_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        rerank.read(parsed(documents=["a", "b"]), body)
