"""OpenAI's dialect as a passage: what is read, what is refused, and the one value that is rewritten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import openai
from llamamgr.wire.errors import DialectError
from llamamgr.wire.openai import ModelRewriter, Peek
from tests.golden import replay
from tests.wire.streams import CHATS, CUTS, body, pieces, single_bytes


def refusal(data: bytes) -> tuple[int, str]:
    with pytest.raises(DialectError) as refused:
        openai.peek(data)
    return refused.value.status, refused.value.message


def chat(content: object = "hi", **fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode()


def rewritten(
    data: bytes, cuts: list[float] | None = None, alias: bytes = b"tinychat", wanted: bytes = b"x/y:z"
) -> bytes:
    rewriter = ModelRewriter(alias, wanted)
    return b"".join(map(rewriter.feed, pieces(data, cuts or []))) + rewriter.eof()


@pytest.mark.parametrize("name", ["v1-chat-no-model", "v1-chat-no-messages", "v1-chat-image-url"])
def test_recorded_refusals_are_given_word_for_word(name: str) -> None:
    (exchange,) = replay.load([name])
    status, message = refusal(exchange.body or b"")
    assert (status, openai.error_body(status, message).decode()) == (
        exchange.status,
        exchange.answer.rstrip(),
    )


@pytest.mark.parametrize("name", ["v1-chat", "v1-chat-stream", "v1-chat-parts", "v1-chat-schema"])
def test_recorded_requests_are_let_through(name: str) -> None:
    (exchange,) = replay.load([name])
    assert openai.peek(exchange.body or b"") == Peek("tinychat", exchange.json.get("stream", False))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "EOF"),
        (b" \r\n", "EOF"),
        (b'{"model":', "unexpected EOF"),
        (b"[]", "json: cannot unmarshal array into Go value of type api.ChatCompletionRequest"),
        (b'{"model":"m"}', "[] is too short - 'messages'"),
        (chat(content=5), "json: cannot unmarshal number into Go struct field Alias.content of type string"),
    ],
)
def test_what_cannot_be_a_chat_is_refused(data: bytes, message: str) -> None:
    assert refusal(data) == (400, message)


@pytest.mark.parametrize(
    "part",
    [
        {"image_url": {"url": "https://x.example/a.png"}},
        {"image_url": {"url": " HTTP://x.example/a.png"}},
        {"image_url": "http://x.example/a.png"},
        {"image_url": {"url": "file:///etc/passwd"}},
        {"video_url": {"url": "http://x.example/a.mp4"}},
        {"input_video": {"data": "http://x.example/a.mp4"}},
        {"input_audio": {"data": "ftp://x.example/a.wav"}},
    ],
)
def test_media_that_the_engine_would_fetch_are_refused(part: dict[str, Any]) -> None:
    # an escape must not hide the address
    data = chat([{"type": "text", "text": "hi"}, {"type": next(iter(part)), **part}]).replace(
        b"http", rb"\u0068ttp"
    )
    assert refusal(data)[1].startswith("image URLs are not currently supported")


@pytest.mark.parametrize(
    "content",
    [
        "see https://x.example/a.png",
        None,
        [{"type": "text", "text": "https://x.example"}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
    ],
)
def test_text_and_enclosed_media_are_let_through(content: object) -> None:
    assert openai.peek(chat(content, stream=True)) == Peek("m", stream=True)


@given(st.binary(max_size=40), st.floats(0, 1))
def test_mutated_requests_are_read_or_refused(data: bytes, at: float) -> None:
    good = chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], stream=True)
    place = round(at * len(good))
    try:
        assert openai.peek(good[:place] + data + good[place + len(data) :]).model
    except DialectError as refused:
        assert refused.status == 400


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "api_error"),
    ],
)
def test_an_errors_type_follows_from_its_status(status: int, kind: str) -> None:
    assert json.loads(openai.error_body(status, "m", "p", "c")) == {
        "error": {"message": "m", "type": kind, "param": "p", "code": "c"}
    }


def test_an_error_in_a_stream_is_an_event() -> None:
    assert openai.stream_error("gone", 500) == b"data: " + openai.error_body(500, "gone") + b"\n\n"


def test_models_are_listed_as_ollama_does() -> None:
    assert openai.models_answer([("a:latest", 5.7)]) == (
        b'{"object":"list","data":[{"id":"a:latest","object":"model","created":5,"owned_by":"library"}]}'
    )
    assert json.loads(openai.model_answer("a", 5))["id"] == "a"


@pytest.mark.parametrize("name", CHATS)
@given(cuts=CUTS)
def test_a_real_stream_keeps_every_byte_but_its_model(name: str, cuts: list[float]) -> None:
    data = body(name)
    assert rewritten(data, cuts) == data.replace(b'"model":"tinychat"', b'"model":"x/y:z"')


OBJECTS = [
    b'{"choices":[{"message":{"content":"\\"model\\":\\"tinychat\\""}}],"model":"tinychat","id":"model"}',
    b'{"verbose":{"model":"tinychat","a":["model",{"model":"b"}]}, "model" : "tinychat" }\n',
    b' {"id":"model","x":{"model":"tinychat"},"model":"tinychat"}',
    b'{"model":"/a \\"path\\".gguf","y":1}',
]


@pytest.mark.parametrize("data", OBJECTS)
@given(cuts=CUTS)
def test_only_the_top_level_model_of_an_object_changes(data: bytes, cuts: list[float]) -> None:
    answer = rewritten(data, cuts)
    assert json.loads(answer) == {**json.loads(data), "model": "x/y:z"}
    assert len(answer) - len(data) == len(b'"x/y:z"') - len(json.dumps(json.loads(data)["model"]))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"",
        b"  ",
        b"data: [DONE]\n\n",
        b": ping\n\n",
        b'{"model":5,"x":"model","y":"tinychat"}',
        b'{"a":{"model":"tinychat"}}',
        b'{"a":"model","b":"tinychat"}',
        b'{"model":"tiny',
        b'event: x\r\nid: {"model":"tinychat"}\r\n\r\n',
        b"data: no json\n",
        b"\xff\xfe",
    ],
)
def test_what_has_no_model_of_its_own_stays_as_it_is(data: bytes) -> None:
    assert rewritten(data) == data


def test_a_wanted_name_is_written_as_json() -> None:
    assert json.loads(rewritten(b'{"model":"tinychat"}', wanted='a"\u20ac'.encode())) == {"model": 'a"\u20ac'}


def test_the_engines_own_name_lets_all_bytes_pass_at_once() -> None:
    rewriter = ModelRewriter(b"same", b"same")
    assert [rewriter.feed(part) for part in single_bytes(b'{"model":"other"')] == single_bytes(
        b'{"model":"other"'
    )
    assert rewriter.eof() == b""


def test_an_event_leaves_with_its_line() -> None:
    rewriter = ModelRewriter(b"a", b"b")
    assert rewriter.feed(b'data: {"model":"a"}\n\ndata: {"mo') == b'data: {"model":"b"}\n\n'
    assert rewriter.feed(b'del":"a"}\n') == b'data: {"model":"b"}\n'


@given(data=st.binary(max_size=200), cuts=CUTS)
def test_any_bytes_pass_without_an_exception_and_cuts_do_not_matter(data: bytes, cuts: list[float]) -> None:
    assert rewritten(data, cuts) == rewritten(data)
