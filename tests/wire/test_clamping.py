"""Whatever a request says, no value that reaches an engine lies outside its range."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.core.config import ModelConfig, parse_config
from llamamgr.core.sampling import FIELDS, SPELLINGS
from llamamgr.wire import ollama
from llamamgr.wire.clamping import clamping, number_of
from llamamgr.wire.errors import DialectError
from llamamgr.wire.guidance import bounded_body, guided_body, laid_over
from llamamgr.wire.ollama_options import parse_options
from llamamgr.wire.persona import NOBODY, Persona, with_settings

CLAMPABLE = sorted(name for name, field in FIELDS.items() if field.default is not None)
WHOLE = st.integers(-10, 100)
PLAIN = st.one_of(WHOLE, st.floats(-10, 100), st.booleans(), st.none(), st.text(max_size=3), st.just(2**70))
HOSTILE = PLAIN.flatmap(lambda one: st.sampled_from((one, [one], {"a": one})))


@st.composite
def clamps(draw: st.DrawFn) -> dict[str, tuple[int | None, int]]:
    found = {}
    for name in draw(st.sets(st.sampled_from(CLAMPABLE), min_size=1, max_size=6)):
        low, high = sorted((draw(st.integers(0, 50)), draw(st.integers(0, 50))))
        found[name] = (draw(st.sampled_from((None, low))), high)
    return found


def sound(name: str, value: object, low: int | None, high: int) -> bool:
    number = number_of(value)
    unlimited = FIELDS[name].unlimited
    assert number is not None
    if unlimited is not None and number <= unlimited and number != high and number != low:
        return False
    return (low is None or number >= low or number == high) and number <= high


@given(
    given=st.dictionaries(
        st.sampled_from([one for name in CLAMPABLE for one in SPELLINGS[name]]), HOSTILE, max_size=8
    ),
    ranges=clamps(),
    raw=st.booleans(),
)
def test_after_clamping_every_value_is_in_its_range(
    given: dict[str, Any], ranges: dict[str, tuple[int | None, int]], raw: bool
) -> None:
    asked = {k: msgspec.Raw(msgspec.json.encode(v)) for k, v in given.items()} if raw else given
    told = {**asked, **clamping(asked, ranges)}
    for name, (low, high) in ranges.items():
        for spelling in SPELLINGS[name]:
            value = told.get(spelling)
            if number_of(value) is not None:
                assert sound(name, value, low, high), (spelling, value)
        heeded = [number_of(told[s]) for s in SPELLINGS[name] if number_of(told.get(s)) is not None]
        if not heeded and name != "n":  # the engine's own default holds
            assert sound(name, FIELDS[name].default, low, high), name


@given(ranges=clamps())
def test_what_is_clamped_once_is_not_changed_again(ranges: dict[str, tuple[int | None, int]]) -> None:
    once = clamping({"max_tokens": 77, "temperature": 9.5, "n": 7}, ranges)
    again = clamping({"max_tokens": 77, "temperature": 9.5, "n": 7, **once}, ranges)
    assert again == {}


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ({}, {"n_predict": 64}),
        ({"n_predict": -1}, {"n_predict": 64}),
        ({"max_tokens": 65}, {"max_tokens": 64}),
        ({"max_tokens": 63}, {}),
        ({"max_tokens": None}, {"n_predict": 64}),
        ({"max_tokens": 3, "n_predict": 999}, {"n_predict": 64}),
        ({"n_predict": "many"}, {"n_predict": 64}),
    ],
)
def test_an_answer_without_a_limit_gets_the_highest(said: dict[str, Any], changed: dict[str, Any]) -> None:
    assert clamping(said, {"n_predict": (None, 64)}) == changed


def test_the_whole_vocabulary_is_more_than_any_top_k() -> None:
    assert clamping({"top_k": 0}, {"top_k": (None, 20)}) == {"top_k": 20}
    assert clamping({"top_k": 0}, {"top_k": (5, math.inf)}) == {}


def test_more_answers_are_never_given_unasked() -> None:
    assert clamping({}, {"n": (2, 4)}) == {}
    assert clamping({"n": 9}, {"n": (2, 4)}) == {"n": 4}


def shaped(**table: Any) -> tuple[Persona, ModelConfig]:
    settings = parse_config({"models": {"m": table}}).settings_of("m")
    modelfile = Persona(options=parse_options({"temperature": 0.1, "top_k": 7}))
    return with_settings(modelfile, settings), settings


def test_the_order_is_request_then_settings_then_modelfile() -> None:
    persona, _ = shaped(defaults={"temperature": 0.5, "min_p": 0.2})
    assert laid_over(persona, {}) == {"temperature": 0.5, "top_k": 7, "min_p": 0.2}
    assert laid_over(persona, {"temperature": 0.9}) == {"top_k": 7, "min_p": 0.2}
    asked = ollama.parse_chat(
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"options":{"min_p":0.3}}'
    )
    sampling = ollama.to_chat_request(asked, 2048, persona=persona).sampling
    assert (sampling["temperature"], sampling["min_p"], sampling["top_k"]) == (0.5, 0.3, 7)


def test_a_modelfiles_value_is_clamped_too() -> None:
    persona, _ = shaped(clamps={"temperature": [0.2, 1], "top_k": 5})
    assert laid_over(persona, {}) == {"temperature": 0.2, "top_k": 5}


def test_ollamas_own_limit_of_ten_contexts_is_clamped() -> None:
    persona, _ = shaped(clamps={"max_tokens": 100})
    asked = ollama.parse_generate(b'{"model":"m","prompt":"hi","options":{"num_predict":-1}}')
    assert ollama.to_prompt_request(asked, "hi", 2048, persona).sampling["n_predict"] == 100


def test_a_body_that_needs_no_change_passes_byte_for_byte() -> None:
    persona = with_settings(NOBODY, shaped(clamps={"temperature": 2})[1])
    body = b'{ "messages" : [], "temperature":1 }'
    assert guided_body(body, persona) is body


@pytest.mark.parametrize("limit", ["n_predict", "max_tokens", "max_output_tokens"])
@pytest.mark.parametrize("said", [{}, {"n_predict": 3}, {"max_tokens": 900}, {"max_output_tokens": 900}])
def test_the_engines_own_forms_are_limited_under_the_name_that_they_heed(
    limit: str, said: dict[str, int]
) -> None:
    persona = with_settings(NOBODY, shaped(clamps={"max_tokens": 50})[1])
    told = json.loads(bounded_body(json.dumps(said).encode(), persona, limit))
    assert 0 < told[limit] <= 50
    assert all(value <= 50 for value in told.values())


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xef\xbb\xbf{}", b'{"a":\xff}'])
def test_what_cannot_be_looked_at_is_refused_where_ranges_must_hold(body: bytes) -> None:
    persona = with_settings(NOBODY, shaped(clamps={"max_tokens": 50})[1])
    with pytest.raises(DialectError, match="JSON object"):
        bounded_body(body, persona, "n_predict")
