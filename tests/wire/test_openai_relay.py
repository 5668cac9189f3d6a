"""Chat answers on their way to a client of OpenAI: under its name, and never malformed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.neutral import Failed, Usage
from llamamgr.wire.openai_relay import BadAnswerError, Relay, whole_answer
from tests.wire.streams import (
    CHATS,
    CUTS,
    SPOILS,
    THOUGHTFUL,
    body,
    pieces,
    single_bytes,
    spoiled,
    sse_events,
)

DONE = b"data: [DONE]\n\n"


def relayed(data: bytes, cuts: list[float] | None = None, wanted: str = "x/y:z") -> tuple[bytes, Relay]:
    relay = Relay(wanted)
    out = b"".join(map(relay.feed, pieces(data, cuts or [])))
    relay.eof()
    return out, relay


@pytest.mark.parametrize("name", CHATS)
@given(cuts=CUTS)
def test_a_real_stream_keeps_every_byte_but_its_model_and_the_ids_of_calls(
    name: str, cuts: list[float]
) -> None:
    out, relay = relayed(body(name), cuts)
    told = out.replace(b'"call_', b'"').replace(b'"assistant","content":""}', b'"assistant","content":null}')
    assert told == body(name).replace(b'"model":"tinychat"', b'"model":"x/y:z"')
    assert out.count(b'"delta":{"role":"assistant","content":""}') == 1  # clients add up what there is
    assert (b'"id":"call_' in out) is (name == "chat-tools")
    assert relay.ended
    assert relay.failed is None


@pytest.mark.parametrize("name", THOUGHTFUL)
def test_reasoning_is_told_under_both_its_names(name: str) -> None:
    out, _ = relayed(body(name))
    deltas = [json.loads(data)["choices"] for _, data in sse_events(out) if data != b"[DONE]"]
    told = [choice["delta"] for choices in deltas for choice in choices]
    assert all(delta.get("reasoning") == delta.get("reasoning_content") for delta in told)
    assert any(delta.get("reasoning") for delta in told) == (name == "chat-thinking")


def test_one_byte_at_a_time_gives_the_same() -> None:
    relay = Relay("x/y:z")
    data = body("chat-thinking")
    assert b"".join(map(relay.feed, single_bytes(data))) == relayed(data)[0]


OBJECTS = [
    b'{"choices":[{"message":{"content":"\\"model\\":\\"tinychat\\""}}],"model":"tinychat","id":"model"}',
    b'{"verbose":{"model":"tinychat","a":["model",{"model":"b"}]}, "model" : "tinychat" ,"choices":[]}\n',
    b' {"id":"model","x":{"model":"tinychat"},"model":"tinychat","choices":[]}',
    b'{"model":"/a \\"path\\".gguf","choices":[]}',
]


@pytest.mark.parametrize("data", OBJECTS)
def test_only_the_top_level_model_of_an_object_changes(data: bytes) -> None:
    answer = whole_answer(data, "x/y:z")
    assert json.loads(answer) == {**json.loads(data), "model": "x/y:z"}
    assert len(answer) - len(data) == len(b'"x/y:z"') - len(json.dumps(json.loads(data)["model"]))


def test_text_that_looks_like_a_field_stays_text() -> None:
    said = json.dumps(
        {"choices": [{"message": {"content": '{"reasoning_content":"x","model":"y"}'}}]}
    ).encode()
    assert whole_answer(said, "z") == said


def test_a_wanted_name_is_written_as_json() -> None:
    assert json.loads(whole_answer(b'{"model":"t","choices":[]}', 'a"\u20ac'))["model"] == 'a"\u20ac'


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b'{"choices":5}', b"\xff", b'{"choices":[],"x":"\xff"}']
)
def test_a_whole_answer_that_is_none_is_an_error(data: bytes) -> None:
    with pytest.raises(BadAnswerError) as bad:
        whole_answer(data, "m")
    assert bad.value.failed.status == 502


FRAME = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
ERROR = b'{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (FRAME, "the engine's answer ended before it was complete"),
        (FRAME + b"data: " + ERROR + b"\n\n" + DONE, "Context size has been exceeded."),
        (FRAME + b"error: " + ERROR + b"\n\n", "Context size has been exceeded."),
        (FRAME + b'data: {"choices":[nonsense\n\n' + DONE, "the engine sent what cannot be read"),
        (FRAME + b"data: null\n\n" + DONE, "the engine sent what cannot be read"),
        (FRAME + b"dat: x\n\n" + DONE, "the engine sent what cannot be read"),
        (FRAME + b'data: {"choices":[],"x":"\xff"}\n\n' + DONE, "the engine sent what cannot be read"),
    ],
)
def test_a_stream_that_goes_wrong_gives_what_was_good_and_tells_the_failure(
    data: bytes, message: str
) -> None:
    out, relay = relayed(data)
    assert out == FRAME
    assert not relay.ended
    assert isinstance(relay.failed, Failed)
    assert relay.failed.message.startswith(message)


def test_pings_pass_and_what_follows_the_end_does_not() -> None:
    out, relay = relayed(b":\n\n" + FRAME + b": ping\r\n\r\n" + DONE + FRAME)
    assert out == b":\n\n" + FRAME + b":\n\n" + DONE
    assert relay.ended


def test_an_event_leaves_with_its_line() -> None:
    relay = Relay("b")
    assert relay.feed(FRAME + FRAME[:20]) == FRAME
    assert relay.feed(FRAME[20:]) == FRAME


@given(data=st.binary(max_size=200), cuts=CUTS)
def test_any_bytes_pass_without_an_exception_and_cuts_do_not_matter(data: bytes, cuts: list[float]) -> None:
    if not data.endswith(b"\r"):  # a line end that was cut through is two
        assert relayed(data.replace(b"\r", b""), cuts)[0] == relayed(data.replace(b"\r", b""))[0]


@given(name=st.sampled_from((*CHATS, *THOUGHTFUL)), spoils=SPOILS, cuts=CUTS)
def test_spoiled_streams_are_never_passed_on_malformed(
    name: str, spoils: list[tuple[float, bytes, int]], cuts: list[float]
) -> None:
    out, relay = relayed(spoiled(body(name), spoils), cuts)
    assert relay.ended != (relay.failed is not None)
    for event, data in sse_events(out):
        assert event == ""
        assert data == b"[DONE]" or isinstance(json.loads(data)["choices"], list)


@pytest.mark.parametrize("name", CHATS)
def test_tokens_are_known_at_the_end_of_a_stream(name: str) -> None:
    usage = relayed(body(name))[1].usage
    assert usage.prompt > 0
    assert usage.completion > 0


def test_an_answer_that_tells_no_tokens_or_nonsense_counts_none() -> None:
    for told in (b"", b',"usage":null', b',"timings":[1]', b',"usage":{"prompt_tokens":"many"}'):
        relay = Relay("x")
        relay.feed(b'data: {"choices":[]%s}\n\n' % told)
        assert relay.usage == Usage()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("9hJaGZo0Dds4vLg5WUZAb20Rhq1JH5cd", "call_9hJaGZo0Dds4vLg5WUZAb20Rhq1JH5cd"),
        ("abcdef123", "abcdef123"),
        ("functions.f:0", "functions.f:0"),
    ],
)
def test_an_id_that_the_engine_made_up_begins_as_openais_and_one_of_the_models_stays(
    given: str, told: str
) -> None:
    call = {"id": given, "function": {"name": "f", "arguments": json.dumps({"id": "0" * 32})}}
    answer = {"id": "chatcmpl-" + "0" * 32, "choices": [{"message": {"tool_calls": [call]}}], "model": "m"}
    read = json.loads(whole_answer(json.dumps(answer, separators=(",", ":")).encode(), "m"))
    assert read == {**answer, "choices": [{"message": {"tool_calls": [{**call, "id": told}]}}]}
