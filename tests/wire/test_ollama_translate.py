"""Ollama's requests said in neutral words, and what a model cannot do."""

from __future__ import annotations

import json

import msgspec
import pytest

from llamamgr.wire import ollama
from llamamgr.wire.errors import DialectError
from llamamgr.wire.neutral import JsonObject, Message
from tests.golden import replay

TOOL = {"type": "function", "function": {"name": "f"}}


def generate(**fields: object) -> ollama.GenerateRequest:
    return ollama.parse_generate(json.dumps({"model": "tiny", "prompt": "hi", **fields}).encode())


def chat(**fields: object) -> ollama.ChatBody:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **fields}
    return ollama.parse_chat(json.dumps(body).encode())


def test_a_prompt_is_a_turn_of_the_user_after_the_systems() -> None:
    assert ollama.turns(generate()) == (Message("user", "hi"),)
    assert ollama.turns(generate(system="be brief", images=["AAAA"])) == (
        Message("system", "be brief"),
        Message("user", "hi", images=("AAAA",)),
    )


def test_a_chat_request_carries_all_that_was_asked() -> None:
    asked = chat(
        tools=[TOOL], format="json", think=False, logprobs=True, top_logprobs=2, options={"top_k": 1}
    )
    said = ollama.to_chat_request(asked, 100, ("completion", "tools", "thinking"))
    assert said.messages == asked.messages
    assert said.tools == (msgspec.Raw(json.dumps(TOOL).encode()),)
    assert (said.response_format, said.think, said.logprobs, said.top_logprobs) == (
        JsonObject(),
        False,
        True,
        2,
    )
    assert (said.sampling["top_k"], said.sampling["n_predict"]) == (1, 1000)


def test_alternatives_without_logprobs_are_nothing() -> None:
    for said in (
        ollama.to_chat_request(chat(top_logprobs=2), 100),
        ollama.to_prompt_request(generate(top_logprobs=2), "p", 100),
    ):
        assert (said.logprobs, said.top_logprobs) == (False, 0)


def test_a_prompt_request_carries_all_that_was_asked() -> None:
    said = ollama.to_prompt_request(generate(format="json", logprobs=True, top_logprobs=2), "<|user|>hi", 100)
    assert (said.prompt, said.response_format) == ("<|user|>hi", JsonObject())
    assert (said.logprobs, said.top_logprobs, said.sampling["n_predict"]) == (True, 2, 1000)


@pytest.mark.parametrize(
    ("think", "capabilities", "wanted"),
    [
        (None, ("completion",), None),
        (None, ("completion", "thinking"), True),
        (False, ("completion", "thinking"), False),
        ("high", ("completion", "thinking"), "high"),
    ],
)
def test_a_model_that_can_think_does_unless_told_not_to(
    think: object, capabilities: tuple[str, ...], wanted: object
) -> None:
    assert ollama.to_chat_request(chat(think=think), 100, capabilities).think == wanted


@pytest.mark.parametrize(
    ("asked", "capabilities", "message"),
    [
        (generate(), ("embedding",), '"tiny" does not support generate'),
        (chat(), ("embedding",), '"tiny" does not support chat'),
        (
            generate(suffix="x"),
            ("completion",),
            "registry.ollama.ai/library/tiny:latest does not support insert",
        ),
        (
            chat(tools=[TOOL]),
            ("completion",),
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        (chat(think=True), ("completion",), '"tiny" does not support thinking'),
        (generate(think="low"), ("completion",), '"tiny" does not support thinking'),
        (
            generate(images=["AAAA"]),
            ("completion",),
            "Multimodal data provided, but model does not support multimodal requests.",
        ),
        # of several faults the one that Ollama looks for first
        (
            generate(raw=True, context=[1], think=True),
            ("completion",),
            "raw mode does not support template, system, or context",
        ),
        (generate(think=True, suffix="x"), ("embedding",), '"tiny" does not support thinking'),
        (chat(tools=[TOOL]), ("embedding",), '"tiny" does not support chat'),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    asked: ollama.Inference, capabilities: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DialectError) as refused:
        ollama.check_capabilities(asked, capabilities)
    assert (refused.value.status, refused.value.message) == (400, message)


@pytest.mark.parametrize(
    ("asked", "capabilities"),
    [
        (generate(think=False), ("completion",)),
        (generate(suffix="x"), ("completion", "insert")),
        (generate(images=["AAAA"]), ("completion", "audio")),
        (chat(tools=[TOOL], think=True), ("completion", "tools", "thinking")),
        (generate(prompt="", images=["AAAA"]), ("completion",)),  # a load shows nothing to the engine
        (generate(raw=True), ("completion",)),
    ],
)
def test_what_a_model_can_do_is_let_through(asked: ollama.Inference, capabilities: tuple[str, ...]) -> None:
    ollama.check_capabilities(asked, capabilities)


@pytest.mark.parametrize(
    "name", ["generate-think", "generate-embed-model", "chat-think-level", "chat-embed-model"]
)
def test_recorded_refusals_are_given_word_for_word(name: str) -> None:
    (exchange,) = replay.load([name])
    parse = ollama.parse_chat if exchange.path == "/api/chat" else ollama.parse_generate
    asked = parse(exchange.body or b"")
    capabilities = ("embedding",) if "embed" in asked.model else ("completion", "tools")
    with pytest.raises(DialectError) as refused:
        ollama.check_capabilities(asked, capabilities)
    assert ollama.error_body(refused.value.message).decode() == exchange.answer
    assert refused.value.status == exchange.status


def test_a_fault_found_by_the_model_names_the_model_as_it_is_installed() -> None:
    with pytest.raises(DialectError) as refused:
        ollama.check_capabilities(generate(model="TINY", suffix="x"), ("completion",), "tiny:latest")
    assert refused.value.message == "registry.ollama.ai/library/tiny:latest does not support insert"
    with pytest.raises(DialectError) as refused:
        ollama.check_capabilities(generate(model="TINY", think=True), ("completion",), "tiny:latest")
    assert refused.value.message == '"TINY" does not support thinking'


def test_a_name_that_is_a_path_is_shown_as_it_is() -> None:
    with pytest.raises(DialectError) as refused:
        ollama.check_capabilities(chat(tools=[TOOL]), ("completion",), "./a b.gguf")
    assert refused.value.message == "./a b.gguf does not support tools"


def test_a_conversation_that_is_too_long_loses_its_oldest_turns_but_neither_system_nor_the_last():
    from llamamgr.wire.neutral import ChatRequest
    from llamamgr.wire.shortening import shortened

    turns = (
        Message("system", "s" * 10),
        *(Message("user", str(n) * 100) for n in range(5)),
        Message("user", "last"),
    )
    request = ChatRequest(messages=turns)
    refusal = "request (300 tokens) exceeds the available context size (200 tokens), try increasing it"
    kept = shortened(request, refusal)
    assert kept is not None
    assert [message.content[:4] for message in kept.messages] == ["ssss", "3333", "4444", "last"]
    alone = ChatRequest(messages=(turns[0], turns[-1]))
    assert shortened(alone, refusal) is None
    assert shortened(request, "something else") is None


def test_a_result_goes_with_the_call_it_belongs_to():
    from llamamgr.wire.neutral import ChatRequest, ToolCall
    from llamamgr.wire.shortening import shortened

    call = Message("assistant", tool_calls=(ToolCall("c", "f", '{"a":"' + "x" * 300 + '"}'),))
    turns = (
        call,
        Message("tool", "rain", tool_call_id="c"),
        Message("user", "and?"),
        Message("user", "last"),
    )
    refusal = "request (300 tokens) exceeds the available context size (250 tokens), try increasing it"
    kept = shortened(ChatRequest(messages=turns), refusal)
    assert kept is not None
    assert kept.messages == turns[2:]


def test_a_conversation_of_countless_empty_turns_is_cut_in_few_steps():
    from llamamgr.wire.neutral import ChatRequest
    from llamamgr.wire.shortening import shortened

    request: ChatRequest | None = ChatRequest(messages=tuple(Message("user") for _ in range(10_000)))
    for _step in range(60):
        assert request is not None
        tokens = 4 * len(request.messages)
        if tokens <= 200:
            break
        refusal = f"request ({tokens} tokens) exceeds the available context size (200 tokens)"
        request = shortened(request, refusal)
    else:
        raise AssertionError("still too long")
