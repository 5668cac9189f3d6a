"""Embeddings in their three forms."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import embeddings, openai
from llamamgr.wire.embeddings import EmbeddingRequest, Embeddings
from llamamgr.wire.errors import DialectError, ProtocolError
from tests.golden import replay

VECTORS = [[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]


def engine_answer(vectors: list[Any], tokens: int = 4) -> bytes:
    rows = [{"embedding": vector, "index": place} for place, vector in enumerate(vectors)]
    return json.dumps({"data": rows[::-1], "usage": {"prompt_tokens": tokens}}).encode()


def v1(**fields: Any) -> EmbeddingRequest:
    return embeddings.parse_v1(json.dumps({"model": "m", "input": ["a", "b"], **fields}).encode())


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2]], ((1,), (2,)))],
)
def test_inputs_are_texts_or_tokens_and_go_in_one_call(given_input: Any, inputs: Any) -> None:
    asked = v1(input=given_input)
    assert asked.inputs == inputs
    assert json.loads(asked.call().body)["input"] == json.loads(json.dumps(inputs))


@pytest.mark.parametrize("bad", [None, "", [], 5, [1, "a"], [{}], {"a": 1}])
def test_an_input_that_is_none_is_refused_in_every_form(bad: Any) -> None:
    with pytest.raises(DialectError) as refused:
        v1(input=bad)
    told = "invalid input type" if bad else "invalid input"
    assert (refused.value.message, refused.value.param) == (told, "input")


@pytest.mark.parametrize("name", [e.name for e in replay.load() if "embed" in e.path and e.status == 400])
def test_recorded_refusals_are_given_word_for_word(name: str) -> None:
    (exchange,) = replay.load([name])
    parse = embeddings.parse_v1 if exchange.path.startswith("/v1/") else embeddings.parse_embed
    with pytest.raises(DialectError) as refused:
        parse(exchange.body or b"")
    message = json.loads(exchange.answer)["error"]
    assert refused.value.message == (message["message"] if isinstance(message, dict) else message)


def test_an_unknown_encoding_is_refused_as_ollama_does() -> None:
    with pytest.raises(DialectError, match=r"Invalid value for 'encoding_format' = x\. Supported"):
        v1(encoding_format="x")
    assert v1(encoding_format="Base64").base64


def test_vectors_are_in_the_order_of_inputs_and_otherwise_untouched() -> None:
    answer = json.loads(embeddings.v1_answer("m", embeddings.read(v1(), engine_answer(VECTORS))))
    assert [row["embedding"] for row in answer["data"]] == VECTORS
    assert [row["index"] for row in answer["data"]] == [0, 1]
    assert (answer["model"], answer["usage"]) == ("m", {"prompt_tokens": 4, "total_tokens": 4})


def test_base64_is_the_engines_own() -> None:
    asked = v1(encoding_format="base64", input="a")
    assert json.loads(asked.call().body)["encoding_format"] == "base64"
    assert bytes(embeddings.read(asked, engine_answer(["AAAA"])).vectors[0]) == b'"AAAA"'


@given(
    vector=st.lists(st.floats(-1, 1), min_size=1, max_size=8), wanted=st.integers(1, 10), packed=st.booleans()
)
def test_dimensions_are_the_first_numbers_normalised_anew(
    vector: list[float], wanted: int, packed: bool
) -> None:
    asked = v1(input="a", dimensions=wanted, encoding_format="base64" if packed else "float")
    assert json.loads(asked.call().body)["encoding_format"] == "float"
    told = json.loads(bytes(embeddings.read(asked, engine_answer([vector])).vectors[0]))
    numbers = (
        list(struct.unpack(f"<{len(base64.b64decode(told)) // 4}f", base64.b64decode(told)))
        if packed
        else told
    )
    assert len(numbers) == min(wanted, len(vector))
    if wanted < len(vector) and any(abs(number) > 1e-3 for number in vector[:wanted]):
        assert math.isclose(math.sqrt(sum(number * number for number in numbers)), 1, rel_tol=1e-5)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"data":[]}', engine_answer([[1.0]]), b'{"data":[{"embedding":[1],"index":5}]}']
)
def test_an_answer_that_does_not_fit_is_an_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        embeddings.read(v1(), body)


def test_ollamas_forms_leave_out_what_is_nothing() -> None:
    nothing = Embeddings((), 0)
    assert embeddings.embed_answer("m", nothing, 5, 5) == b'{"model":"m","embeddings":[]}'
    assert embeddings.legacy_answer(nothing) == b'{"embedding":[]}'
    found = embeddings.read(v1(input="a"), engine_answer([[1.0]]))
    assert json.loads(embeddings.embed_answer("m", found, 7, 0)) == {
        "model": "m",
        "embeddings": [[1.0]],
        "total_duration": 7,
        "prompt_eval_count": 4,
    }


def test_ollamas_requests_cut_what_is_too_long_unless_told_not_to() -> None:
    assert embeddings.parse_embed(b'{"model":"m","input":"a"}').truncate
    assert not embeddings.parse_embed(b'{"model":"m","input":"a","truncate":false}').truncate
    assert not v1().truncate
    legacy = embeddings.parse_legacy(b'{"model":"m","prompt":"a","keep_alive":"2m"}')
    assert (legacy.keep_alive, legacy.truncate) == (120, False)


def test_fewer_dimensions_than_none_are_all_of_them_for_ollama_and_a_mistake_for_openai() -> None:
    assert embeddings.parse_embed(b'{"model":"m","input":"a","dimensions":-1}').dimensions == 0
    with pytest.raises(DialectError, match="dimensions must be positive"):
        v1(input="a", dimensions=-1)


def test_a_missing_model_is_told_before_an_input_that_is_none() -> None:
    with pytest.raises(DialectError, match="model '' not found"):
        embeddings.parse_embed(b'{"input":5}')


@pytest.mark.parametrize(
    ("tokens", "bare", "reserve", "cut"),
    [
        ((1, 5, 6, 7, 2), (5, 6, 7), 0, (1, 5, 6, 2)),
        ((1, 5, 6, 7, 8), (5, 6, 7, 8), 0, (1, 5, 6, 7)),
        ((1, 5, 6, 7, 8), (5, 6, 7, 8), 2, (1, 5, 6)),
        ((1, 5, 6, 7, 2), (5, 6, 7), 2, (1, 5, 6, 2)),
        ((5, 6, 7, 8, 9), (5, 6, 7, 8, 9), 0, (5, 6, 7, 8)),
        ((5, 6, 7), (5, 6, 7), 2, (5, 6)),
    ],
)
def test_a_cut_keeps_the_tokens_around_an_input(tokens: Any, bare: Any, reserve: int, cut: Any) -> None:
    assert embeddings.cut(tokens, bare, 4, reserve) == cut


def test_the_recorded_missing_input_has_its_envelope() -> None:
    (exchange,) = replay.load(["v1-embeddings-missing"])
    assert openai.error_body(400, "invalid input").decode() == exchange.answer.rstrip()


def test_many_inputs_go_in_several_calls_so_that_no_answer_grows_beyond_measure() -> None:
    assert v1(input="a").batches() == [v1(input="a")]
    many = v1(input=[str(number) for number in range(600)], dimensions=3)
    batches = many.batches()
    assert [len(batch.inputs) for batch in batches] == [256, 256, 88]
    assert tuple(one for batch in batches for one in batch.inputs) == many.inputs
    assert {batch.dimensions for batch in batches} == {3}
