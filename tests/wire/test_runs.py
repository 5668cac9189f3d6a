"""Frames that differ in their text only are read in one go, and tell what they tell one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from llamamgr.wire.engine_stream import ChatStream
from llamamgr.wire.neutral import TextDelta
from llamamgr.wire.openai_relay import Relay
from llamamgr.wire.runs import Runs, are_sound

DONE = b"data: [DONE]\n\n"


def frame(delta: dict[str, Any], created: int = 1, *, ascii_only: bool = False, **more: Any) -> bytes:
    choice = {"finish_reason": None, "index": 0, "delta": delta, **more}
    whole = {"choices": [choice], "created": created, "id": "chatcmpl-x", "model": "engine"}
    return b"data: " + json.dumps(whole, separators=(",", ":"), ensure_ascii=ascii_only).encode() + b"\n\n"


def said(text: str, **more: Any) -> bytes:
    return frame({"content": text}, **more)


LAST = frame({}, finish_reason="stop")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
FRAMES = st.one_of(
    st.builds(said, TEXTS),
    st.builds(said, TEXTS, ascii_only=st.just(True)),
    st.builds(said, TEXTS, created=st.integers(1, 2)),
    st.builds(lambda text: frame({"reasoning_content": text}), TEXTS),
    st.sampled_from(
        [frame({"role": "assistant", "content": None}), b":\n\n", said("a", logprobs={"content": []})]
    ),
)
STREAMS = st.lists(st.one_of(st.builds(said, TEXTS), FRAMES), max_size=20).map(
    lambda some: [*some, LAST, DONE]
)


def relayed(*feeds: Sequence[bytes]) -> tuple[bytes, object]:
    relay = Relay("asked:for")
    out = b"".join([relay.feed(*pieces) for pieces in feeds])
    relay.eof()
    return out, relay.failed


def told(*feeds: Sequence[bytes]) -> list[object]:
    stream = ChatStream()
    return [one for pieces in feeds for one in stream.feed(*pieces)] + stream.eof()


@given(frames=STREAMS)
def test_a_stream_fed_by_frames_is_the_stream_fed_as_bytes(frames: list[bytes]) -> None:
    assert relayed(frames) == relayed([b"".join(frames)])
    assert told(frames) == told([b"".join(frames)])


@given(
    frames=STREAMS,
    at=st.integers(0, 19),
    spoil=st.binary(max_size=3),
    place=st.floats(0, 1),
    cut=st.integers(0, 4),
)
def test_a_spoiled_frame_in_a_run_is_told_as_it_is_alone(
    frames: list[bytes], at: int, spoil: bytes, place: float, cut: int
) -> None:
    hurt = frames[at % len(frames)]
    where = round(place * len(hurt))
    frames[at % len(frames)] = hurt[:where] + spoil + hurt[where + cut :]
    by_frames, as_bytes = relayed(frames), relayed([b"".join(frames)])
    event(f"failed: {as_bytes[1] is not None}")
    assert by_frames[0] == as_bytes[0]
    assert (by_frames[1] is None) == (as_bytes[1] is None)
    assert told(frames)[:-1] == told([b"".join(frames)])[:-1]


def test_a_run_is_taken_whole_and_ends_where_another_frame_begins() -> None:
    runs = Runs()
    runs.learn(said("a"))
    pieces = [said("b"), said("c\n"), said(""), LAST, said("d")]
    assert runs.take(pieces, 0) == [b"b", b"c\\n", b""]
    assert runs.take(pieces, 3) == []
    assert runs.take(pieces, 4) == [b"d"]


@pytest.mark.parametrize(
    "other",
    [
        frame({"reasoning_content": "a"}),
        frame({"content": "a", "tool_calls": []}),
        frame({"content": "a"}, finish_reason="stop"),
        frame({"content": "a"}, logprobs={"content": []}),
        b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"a"}}],"error":{}}\n\n',
        b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"a"}},1]}\n\n',
        said("a")[:-1],
        b":\n\n" + said("a"),
        b'data: {"delta":{"content":"a"}}\n\n',
    ],
)
def test_only_a_frame_that_tells_a_text_and_nothing_else_is_learned(other: bytes) -> None:
    runs = Runs()
    runs.learn(other)
    assert runs.before == b""


@pytest.mark.parametrize(
    "text",
    [b'"', b"\\", b"\\x", b"\\u12", b"\n", b"\x00", b"\xff", b"\\ud800", b'a","b', b"a\\"],
)
def test_a_text_that_could_not_stand_in_a_string_is_not_sound(text: bytes) -> None:
    assert not are_sound([text])
    assert not are_sound([b"good", text, b"good"])
    assert are_sound([b"good", b'\\"\\n\\u00e9', "é".encode()])


def test_a_run_before_a_broken_text_is_told_and_the_broken_one_fails() -> None:
    broken = said("x").replace(b'"x"', b'"x\\q"')
    out, failed = relayed([said("a"), said("b"), said("c"), broken, said("d"), DONE])
    assert [
        json.loads(line[6:])["choices"][0]["delta"]["content"] for line in out.split(b"\n\n") if line
    ] == [*"abc"]
    assert failed is not None


def test_a_kind_of_stream_that_never_makes_a_run_is_given_up_on() -> None:
    runs = Runs()
    for number in range(100):
        runs.learn(said("a", created=number))
    assert runs.before == frame({"content": ""}, created=7).partition(b'""')[0] + b'"'


def test_an_empty_text_makes_no_event() -> None:
    events = told([said("a"), said(""), said("b"), said(""), LAST, DONE])
    assert [one for one in events if isinstance(one, TextDelta)] == [TextDelta("a"), TextDelta("b")]
