"""``/v1/completions``: requests, and the engine's native stream as OpenAI's older form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai_completions import CompletionRequest, Renderer, parse
from tests.golden import replay
from tests.wire.streams import COMPLETIONS, CUTS, PROMPTS, SPOILS, body, pieces, spoiled, sse_events

HEAD = {"id": "cmpl-1", "created": 5, "model": "m"}


def request(**fields: Any) -> CompletionRequest:
    return parse(json.dumps({"model": "m", "prompt": "hi", **fields}).encode())


def called(**fields: Any) -> dict[str, Any]:
    return dict(json.loads(request(**fields).call().body))


def rendered(
    data: bytes, asked: CompletionRequest, cuts: list[float] | None = None, echoed: list[str] | None = None
) -> tuple[bytes, Renderer]:
    renderer = Renderer(asked, HEAD, echoed or [])
    out = b"".join(map(renderer.feed, pieces(data, cuts or [])))
    renderer.eof()
    return out, renderer


def chunks(out: bytes) -> list[dict[str, Any]]:
    events = [data for _, data in sse_events(out)]
    assert events.pop() == b"[DONE]"
    return [json.loads(data) for data in events]


def test_engine_fields_pass_and_ours_do_not() -> None:
    sent = called(top_k=3, grammar="g", max_tokens=5, stop="x", stream=True, user="u", best_of=1, echo=True)
    assert sent.pop("response_fields")
    assert sent == {"prompt": "hi", "stream": True, "top_k": 3, "grammar": "g", "max_tokens": 5, "stop": "x"}


def test_all_prompts_and_choices_go_in_one_call() -> None:
    sent = called(prompt=["a", [1, 2]], n=3, logprobs=0)
    assert (sent["prompt"], sent["n"], sent["n_probs"]) == (["a", [1, 2]], 3, 1)


def test_a_suffix_is_filled_in_before() -> None:
    call = request(suffix="end").call()
    sent = json.loads(call.body)
    assert (call.path, sent["input_prefix"], sent["input_suffix"]) == ("/infill", "hi", "end")


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("", ("",)), ([1, 2], ((1, 2),)), (["a", "b"], ("a", "b")), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_prompts_are_text_or_tokens_one_or_many(prompt: Any, prompts: tuple[Any, ...]) -> None:
    assert request(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [{}]}, "prompt"),
        ({"n": -1}, "n"),
        ({"n": 5000}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 99}, "logprobs"),
        ({"logprobs": 1, "echo": True}, "logprobs"),
        ({"suffix": "x", "prompt": ["a", "b"]}, "suffix"),
        ({"suffix": "x", "prompt": [1]}, "suffix"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(DialectError) as refused:
        request(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_without_a_model_none_is_found() -> None:
    with pytest.raises(DialectError) as refused:
        request(model="")
    assert (refused.value.status, refused.value.message, refused.value.param) == (
        404,
        "model '' not found",
        "model",
    )


@pytest.mark.parametrize("name", ["v1-completions", "v1-completions-stream"])
def test_the_recorded_answer_comes_from_the_recorded_engine(name: str) -> None:
    (exchange,) = replay.load([name])
    asked = parse(exchange.body or b"")
    head = {**HEAD, "model": "tinychat", "system_fingerprint": "fp"}
    renderer = Renderer(asked, head)
    out = renderer.feed(body("completion"))
    text = out.decode() if asked.stream else renderer.whole().decode()
    assert replay.difference(exchange, 200, exchange.content_type, text) == ""


def test_choices_are_told_apart_and_counted_together() -> None:
    asked = request(prompt=["a", "b"], n=2)
    _, renderer = rendered(body(PROMPTS), asked)
    whole = json.loads(renderer.whole())
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in whole["choices"]] == [
        " one two",
        " one two",
        "Every llama",
        "Every llama",
    ]
    assert {choice["finish_reason"] for choice in whole["choices"]} == {"length"}
    assert whole["usage"]["completion_tokens"] == 8
    assert whole["usage"]["prompt_tokens"] == 4  # two prompts of two tokens, each counted once


def test_usage_is_a_chunk_of_its_own_when_it_is_asked_for() -> None:
    asked = request(prompt=["a", "b"], n=2, stream=True, stream_options={"include_usage": True})
    out, _ = rendered(body(PROMPTS), asked)
    last = chunks(out)[-1]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 12)
    assert not any("usage" in chunk for chunk in chunks(out)[:-1])


def test_log_probabilities_have_their_older_form() -> None:
    asked = request(logprobs=1)
    _, renderer = rendered(body("completion-logprobs"), asked)
    (choice,) = json.loads(renderer.whole())["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert told["text_offset"][:3] == [0, 5, 10]
    assert all(
        len(top) == 1 and token in top
        for token, top in zip(told["tokens"], told["top_logprobs"], strict=True)
    )
    assert len(told["token_logprobs"]) == len(told["tokens"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_is_repeated_before_its_answer(stream: bool) -> None:
    asked = request(prompt=["a", "b"], n=2, echo=True, stream=stream)
    out, renderer = rendered(body(PROMPTS), asked, echoed=["A:", "B:"])
    assert texts(out, renderer, asked) == ["A: one two", "A: one two", "B:Every llama", "B:Every llama"]


def test_no_tokens_asked_for_are_none_told() -> None:
    asked = request(max_tokens=0, echo=True)
    _, renderer = rendered(body("completion-length"), asked, echoed=["hi"])
    whole = json.loads(renderer.whole())
    assert whole["choices"][0]["text"] == "hi"
    assert whole["usage"]["completion_tokens"] == 0


def texts(out: bytes, renderer: Renderer, asked: CompletionRequest) -> list[str]:
    if not asked.stream:
        return [choice["text"] for choice in json.loads(renderer.whole())["choices"]]
    said = [""] * asked.choices
    for chunk in chunks(out):
        for choice in chunk["choices"]:
            said[choice["index"]] += choice["text"]
    return said


@pytest.mark.parametrize("name", [*COMPLETIONS, PROMPTS])
@given(cuts=CUTS)
def test_streamed_is_whole_at_any_cut(name: str, cuts: list[float]) -> None:
    many = {"prompt": ["a", "b"], "n": 2} if name == PROMPTS else {}
    whole, streamed = request(**many, logprobs=2), request(**many, logprobs=2, stream=True)
    _, renderer = rendered(body(name), whole, cuts)
    out, other = rendered(body(name), streamed, cuts)
    assert texts(out, other, streamed) == texts(b"", renderer, whole)
    for choice in json.loads(renderer.whole())["choices"]:
        mine = [c for chunk in chunks(out) for c in chunk["choices"] if c["index"] == choice["index"]]
        assert [t for c in mine for t in (c["logprobs"] or {"tokens": []})["tokens"]] == choice["logprobs"][
            "tokens"
        ]
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == [choice["finish_reason"]]


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"index":0,"content":"a","stop":false}\n\n',
        b'data: {"index":7,"content":"a","stop":false}\n\n',
        b'data: {"error":{"code":500,"message":"gone","type":"server_error"}}\n\n',
        b'error: {"message":"gone"}\n\n',
        b"data: [nonsense\n\n",
        b'data: {"index":0,"stop":true,"timings":{"cache_n":"x"}}\n\n',
        b"",
    ],
)
def test_what_is_no_whole_answer_is_a_failure(data: bytes) -> None:
    _, renderer = rendered(data, request())
    assert renderer.failed is not None
    assert renderer.failed.status >= 500


def test_figures_that_pass_unread_are_sound_text_all_the_same() -> None:
    data = body(PROMPTS).replace(b'"predicted_ms"', b'"predicted_m\xff"')
    _, renderer = rendered(data, request(prompt=["a", "b"], n=2))
    assert renderer.failed is not None
    assert "utf-8" in renderer.failed.message


@given(
    name=st.sampled_from((*COMPLETIONS, PROMPTS)),
    spoils=SPOILS,
    cuts=CUTS,
    stream=st.booleans(),
    n=st.integers(1, 2),
)
def test_spoiled_streams_give_a_failure_or_a_sound_answer(
    name: str, spoils: list[tuple[float, bytes, int]], cuts: list[float], stream: bool, n: int
) -> None:
    asked = request(prompt=["a", "b"], n=n, stream=stream, logprobs=1)
    out, renderer = rendered(spoiled(body(name), spoils), asked, cuts)
    for _, data in sse_events(out):
        assert data == b"[DONE]" or json.loads(data)["object"] == "text_completion"
    if not stream and renderer.failed is None:
        assert len(json.loads(renderer.whole())["choices"]) == 2 * n
