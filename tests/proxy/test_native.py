"""Ollama's generation endpoints over a fake child."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llamamgr.core.config import ServerConfig
from llamamgr.supervise.lease import LoadOptions
from tests.contract.conftest import real_binary
from tests.proxy.conftest import ANSWER, HI, Front, MakeFront

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


async def test_a_chat_streams_lines_and_ends_with_the_metrics(front: Front) -> None:
    lines = await front.lines("/api/chat", model="tinychat", messages=HI)
    assert "".join(line["message"]["content"] for line in lines) == ANSWER
    assert [line["done"] for line in lines] == [False] * 6 + [True]
    last = lines[-1]
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 6, 7)
    assert last["total_duration"] >= last["load_duration"] > 0


async def test_a_client_may_write_fields_in_capitals(front: Front) -> None:
    asked = {"Model": "tinychat", "Messages": [{"Role": "User", "Content": "hi"}], "Stream": False}
    async with front.post("/api/chat", asked) as answer:
        assert json.loads(await answer.read())["message"]["content"] == ANSWER


async def test_capitals_are_read_beside_fields_that_are_known(front: Front) -> None:
    status, told = await front.whole(
        "/api/generate", model="tinychat", Prompt="hi", Options={"num_predict": 2}
    )
    assert (status, told["done_reason"], told["eval_count"]) == (200, "length", 2)
    status, told = await front.whole("/api/embed", model="tinyembed", INPUT=5)
    assert (status, told["error"]) == (400, "invalid input type")
    body = {"model": "tinychat", "Messages": [{"role": "user", "Content": "hi"}], "max_tokens": 2}
    status, told = await front.whole("/v1/chat/completions", **body)
    assert (status, told["choices"][0]["finish_reason"]) == (200, "length")


async def test_a_whole_chat_is_the_concatenation_of_the_stream(front: Front) -> None:
    status, whole = await front.whole("/api/chat", model="tinychat", messages=HI)
    assert status == 200
    assert whole["message"] == {"role": "assistant", "content": ANSWER}


async def test_a_whole_answer_has_its_length_and_charset_in_the_head(front: Front) -> None:
    async with front.post("/api/chat", {"model": "tinychat", "messages": HI, "stream": False}) as answer:
        body = await answer.read()
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(body))


async def test_the_answer_names_the_model_as_it_was_asked_for(front: Front) -> None:
    for name in ("TINYCHAT", "tinychat:latest", "registry.ollama.ai/library/tinychat:latest"):
        _, whole = await front.whole("/api/chat", model=name, messages=HI)
        assert whole["model"] == name


async def test_generate_gives_a_context_that_a_later_request_goes_on_from(front: Front) -> None:
    _, first = await front.whole("/api/generate", model="tinychat", prompt="hi")
    assert first["response"] == ANSWER
    # of the text, as Ollama tells it, not the tokens that were generated
    assert first["context"][:5] == [259, 107, 108, 2, 260]
    _, second = await front.whole("/api/generate", model="tinychat", prompt="hi", context=first["context"])
    size = len(first["context"])
    assert second["context"] == [*first["context"], *first["context"]]
    assert second["prompt_eval_count"] == size + first["prompt_eval_count"]
    lines = await front.lines("/api/generate", model="tinychat", prompt="hi")
    assert lines[-1]["context"] == first["context"]


async def test_a_raw_prompt_meets_no_template_and_gives_no_context(front: Front) -> None:
    _, whole = await front.whole("/api/generate", model="tinychat", prompt="hi", raw=True)
    assert (whole["response"], whole["prompt_eval_count"]) == (ANSWER, 3)
    assert "context" not in whole
    _, plain = await front.whole("/api/generate", model="selftest", prompt="hi", raw=True)
    assert "thinking" not in plain  # a raw prompt is not made a chat, though this model thinks in one


async def test_a_system_text_becomes_a_turn_of_its_own(front: Front) -> None:
    _, whole = await front.whole("/api/generate", model="tinychat", prompt="hi", system="be")
    assert whole["context"][:3] == [261, 101, 104]


async def test_num_predict_ends_by_length(front: Front) -> None:
    lines = await front.lines("/api/generate", model="tinychat", prompt="hi", options={"num_predict": 3})
    assert "".join(line["response"] for line in lines) == "Hello from the"
    assert lines[-1]["done_reason"] == "length"


async def test_tool_calls_arrive_whole_with_the_last_line(front: Front) -> None:
    lines = await front.lines("/api/chat", model="tinychat", messages=HI, tools=[WEATHER])
    calls = lines[-1]["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["get_weather"]
    assert calls[0]["function"]["arguments"] == {"city": "Paris"}
    assert lines[-1]["done_reason"] == "stop"


async def test_a_model_that_thinks_does_so_in_a_field_of_its_own(front: Front) -> None:
    lines = await front.lines("/api/chat", model="selftest", messages=HI, think=True)
    assert any(line["message"].get("thinking") for line in lines)
    _, whole = await front.whole("/api/generate", model="selftest", prompt="hi", think=True)
    assert whole["thinking"]
    _, quiet = await front.whole("/api/generate", model="selftest", prompt="hi", think=False)
    assert "thinking" not in quiet
    assert quiet["response"] == whole["response"]


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
async def test_an_empty_prompt_loads_and_with_keep_alive_0_unloads(front: Front, path: str) -> None:
    async with front.post(path, {"model": "tinychat", "keep_alive": "10m"}) as answer:
        loaded = json.loads(await answer.read())
    assert (loaded["done"], loaded["done_reason"]) == (True, "load")
    assert [granted[2] for granted in front.children.granted] == [600.0]
    assert front.children.leases == 0
    assert front.children.status()
    for _ in range(2):
        async with front.post(path, {"model": "tinychat", "keep_alive": 0}) as answer:
            assert json.loads(await answer.read())["done_reason"] == "unload"
    assert not front.children.status()


async def test_an_embedding_model_can_be_unloaded_but_not_chatted_with(front: Front) -> None:
    status, answer = await front.whole("/api/chat", model="tinyembed", messages=HI)
    assert (status, answer) == (400, {"error": '"tinyembed" does not support chat'})
    status, answer = await front.whole("/api/generate", model="tinyembed", keep_alive=0)
    assert (status, answer["done_reason"]) == (200, "unload")


async def test_load_options_and_keep_alive_reach_the_lease(front: Front) -> None:
    options = {"num_ctx": 512, "num_gpu": 3, "num_thread": 2, "temperature": 0}
    await front.whole("/api/generate", model="tinychat", prompt="hi", options=options, keep_alive=0)
    model, wishes, keep_alive = front.children.granted[0]
    assert (model.name, keep_alive) == ("tinychat:latest", 0.0)
    assert wishes == LoadOptions(context=512, gpu_layers=3, threads=2)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "nope", "prompt": "hi"}, 404, "model 'nope' not found"),
        ({"model": "nope", "prompt": "hi", "raw": True, "system": "s"}, 404, "model 'nope' not found"),
        ({"model": "tinychat", "prompt": "hi", "raw": True, "system": "s"}, 400, "raw mode does not support"),
        (
            {"model": "TinyChat", "prompt": "hi", "suffix": "s"},
            400,
            "registry.ollama.ai/library/tinychat:latest does not support insert",
        ),
        ({"model": "bad name!", "prompt": "hi"}, 400, "invalid model name"),
        (
            {"model": "tinychat", "prompt": "hi", "template": "{{ .Prompt"},
            400,
            "template: :1: unclosed action",
        ),
        (
            {"model": "tinychat", "prompt": "hi", "keep_alive": "banana"},
            400,
            'time: invalid duration "banana"',
        ),
        ({"model": "tinychat", "prompt": "hi", "think": True}, 400, '"tinychat" does not support thinking'),
        (
            {"model": "tinychat", "prompt": "hi" * 3000},
            400,
            "exceeds the available context size (2048 tokens)",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_before_the_stream(
    front: Front, body: dict[str, object], status: int, message: str
) -> None:
    async with front.post("/api/generate", body) as answer:
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert message in json.loads(await answer.read())["error"]


async def test_a_full_queue_is_503_with_the_seconds_to_wait(front: Front) -> None:
    front.children.busy = True
    async with front.post("/api/chat", {"model": "tinychat", "messages": HI}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
        assert json.loads(await answer.read())["error"].startswith("server busy, please try again.")


async def test_a_body_beyond_the_limit_is_413_in_the_dialect(make_front: MakeFront) -> None:
    async with make_front(server=ServerConfig(body_limit=1000)) as front:
        async with front.post("/api/chat", b"x" * 2000) as answer:
            assert (answer.status, list(json.loads(await answer.read()))) == (413, ["error"])
        async with front.post("/v1/chat/completions", b"x" * 2000) as answer:
            error = json.loads(await answer.read())["error"]
            assert (answer.status, error["type"]) == (413, "invalid_request_error")


async def test_many_at_once_all_end_well_and_leave_no_lease(front: Front) -> None:
    async def one() -> int:
        return len(await front.lines("/api/chat", model="tinychat", messages=HI))

    assert await asyncio.gather(*(one() for _ in range(32))) == [7] * 32
    assert front.children.leases == 0


async def test_the_prompt_is_shown_as_it_would_go_to_the_engine_and_nothing_is_generated(
    front: Front,
) -> None:
    for stream in (True, False):
        asked = {"model": "TinyChat", "_debug_render_only": True, "stream": stream}
        async with front.post("/api/generate", {**asked, "prompt": "hi", "system": "be"}) as answer:
            told = json.loads(await answer.read())
            assert (answer.status, answer.content_type) == (200, "application/json")
        prompt = "<|system|>be</s><|user|>hi</s><|assistant|>"
        assert list(told) == ["model", "created_at", "response", "done", "_debug_info"]
        assert (told["response"], told["done"], told["_debug_info"]) == (
            "",
            False,
            {"rendered_template": prompt},
        )
        async with front.post("/api/chat", {**asked, "messages": HI}) as answer:
            told = json.loads(await answer.read())
        assert told["message"] == {"role": "", "content": ""}
        assert told["_debug_info"] == {"rendered_template": "<|user|>hi</s><|assistant|>"}
    _, told = await front.whole(
        "/api/generate", model="tinychat", prompt="a", raw=True, _debug_render_only=True
    )
    assert told["_debug_info"] == {"rendered_template": "a"}
    _, told = await front.whole(
        "/api/generate", model="tinychat", prompt="a", template="[{{ .Prompt }}]", _debug_render_only=True
    )
    assert told["_debug_info"] == {"rendered_template": "[a]"}
    assert front.children.tally.of("tinychat:latest").tokens.generated == 0


async def test_a_prompt_that_is_too_long_where_nothing_may_be_shifted_is_refused_in_ollamas_words(
    front: Front,
) -> None:
    long = "hi" * 3000
    refused = (
        "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    )
    refused += "adjust the context length in settings, or use a model with a longer context length"
    asked = {"model": "tinychat", "shift": False}
    chat = {"messages": [{"role": "user", "content": long}]}
    assert await front.whole("/api/generate", **asked, prompt=long) == (400, {"error": refused})
    assert await front.whole("/api/chat", **asked, **chat) == (400, {"error": refused})
    for body in ({"shift": False, "truncate": False}, {}):
        status, told = await front.whole("/api/chat", **{**asked, "shift": True, **body}, **chat)
        assert (status, "exceeds the available context size (2048 tokens)" in told["error"]) == (400, True)
    turns = [*chat["messages"], *HI]
    assert (await front.whole("/api/chat", **asked, messages=turns))[0] == 200  # the oldest turn may go


@pytest.mark.real
async def test_tokens_that_a_model_does_not_have_are_the_clients_mistake(
    make_front: MakeFront, request: pytest.FixtureRequest
) -> None:
    async with make_front(binary=real_binary(request)) as front:
        ask = {"prompt": "hi", "context": [5, 99999999]}
        status, told = await front.whole("/api/generate", model="tinychat", **ask)
        assert (status, told["error"]) == (400, "context has ids of tokens that the model does not have")
        ask = {"prompt": [5, 99999999], "echo": True}
        status, told = await front.whole("/v1/completions", model="tinychat", **ask)
        assert (status, told["error"]["param"]) == (400, "prompt"), told


@pytest.mark.real
async def test_an_answer_that_was_thought_over_can_be_gone_on_from_too(
    make_front: MakeFront, request: pytest.FixtureRequest
) -> None:
    async with make_front(binary=real_binary(request)) as front:
        asked = {"model": "selftest", "prompt": "hi"}
        _, first = await front.whole("/api/generate", **asked)
        assert first["thinking"]
        lines = await front.lines("/api/generate", **asked)
        assert lines[-1]["context"] == first["context"]
        _, plain = await front.whole("/api/generate", **asked, think=False)
        assert plain["context"] == first["context"]  # thoughts are no part of what was said
        before = first["context"]
        _, second = await front.whole("/api/generate", **asked, context=before)
        assert (second["thinking"], second["response"]) == (first["thinking"], first["response"])
        assert (second["context"], second["prompt_eval_count"]) == (before + before, len(before) + 6)
        _, quiet = await front.whole("/api/generate", **asked, context=before, think=False)
        assert (quiet["response"], quiet["context"], "thinking" in quiet) == (
            first["response"],
            before + before,
            False,
        )


@pytest.mark.parametrize(
    ("path", "unknown", "mistake"),
    [
        ("/api/generate", "model 'nope' not found", {"format": "xml"}),
        ("/api/chat", "model 'nope' not found", {"options": {"temperature": "hot"}}),
        ("/api/embed", 'model "nope" not found, try pulling it first', {"options": {"temperature": "hot"}}),
        (
            "/api/embeddings",
            'model "nope" not found, try pulling it first',
            {"options": {"temperature": "hot"}},
        ),
    ],
)
async def test_of_an_unknown_model_and_a_wrong_option_the_model_is_told(
    front: Front, path: str, unknown: str, mistake: dict[str, Any]
) -> None:
    status, told = await front.whole(path, model="nope", **mistake)
    assert (status, told["error"]) == (404, unknown)
    status, told = await front.whole(path, model="tinyembed", **mistake)
    assert status == 400
    if path in ("/api/generate", "/api/chat"):
        assert told["error"] == f'"tinyembed" does not support {path.removeprefix("/api/")}'
    else:
        assert "must be of type float32" in told["error"]


async def test_of_several_mistakes_the_one_is_told_that_ollama_comes_to_first(front: Front) -> None:
    bad, hot = {"format": "xml"}, {"options": {"temperature": "hot"}}
    hi = {"prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}
    for path in ("/api/generate", "/api/chat"):
        for asked, wanted in (
            ({**hot, "keep_alive": 0}, "unload"),
            ({**bad, "keep_alive": 0}, "unload"),
            (bad, "load"),
            (hot, 'option "temperature" must be of type float32'),
            ({**hot, **hi, "think": True}, '"tinychat" does not support thinking'),
            ({**bad, **hi}, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
        ):
            status, told = await front.whole(path, model="tinychat", **asked)
            assert (status, told.get("done_reason", told.get("error"))) == (
                200 if wanted in ("load", "unload") else 400,
                wanted,
            )
