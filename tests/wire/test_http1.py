"""The HTTP/1.1 client side, over answers of a real llama-server and over bytes that no server should send."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from llamamgr.wire.http1 import (
    Body,
    End,
    Event,
    Head,
    PrematureEndError,
    ProtocolError,
    ResponseParser,
    request_bytes,
)
from tests.wire.streams import ANSWERS, CUTS, pieces, recorded, single_bytes

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SAMPLES = {
    "length": LENGTH,
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "continued": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH,
    "chunks": CHUNKED + b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"00A \r\n0123456789\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
    "until close": b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nall of it",
    "surplus": LENGTH + b"HTTP/1.1",
}


def outcome(parts: list[bytes], *, method: str = "GET", close: bool = False) -> tuple[object, ...]:
    """All that a parser tells, with the body joined: what must not depend on how the bytes were cut."""
    parser, events, mistake = ResponseParser(method), [], ""
    try:
        for part in parts:
            events += parser.feed(part)
        if close:
            events += parser.eof()
    except ProtocolError as error:
        events += error.before
        mistake = str(error)
    return (
        head_of(events),
        body_of(events),
        [e for e in events if isinstance(e, End)],
        mistake,
        parser.surplus,
    )


def head_of(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, Head)]


def body_of(events: list[Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Body))


@pytest.mark.parametrize("name", ANSWERS)
@given(cuts=CUTS)
def test_any_cut_of_a_real_answer_gives_the_same_events(name: str, cuts: list[float]) -> None:
    data = recorded(name)
    assert outcome(pieces(data, cuts)) == outcome([data])


@pytest.mark.parametrize("sample", SAMPLES)
@given(cuts=CUTS)
def test_any_cut_of_any_framing_gives_the_same_events(sample: str, cuts: list[float]) -> None:
    data = SAMPLES[sample]
    assert outcome(pieces(data, cuts), close=True) == outcome([data], close=True)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_real_answer_fed_byte_by_byte_is_the_same_answer(name: str) -> None:
    data = recorded(name)
    assert outcome(single_bytes(data)) == outcome([data])


@pytest.mark.parametrize("name", ANSWERS)
def test_a_real_answer_cut_short_anywhere_is_never_a_clean_end(name: str) -> None:
    data = recorded(name)
    for size in range(len(data)):
        parser = ResponseParser("POST")
        events = parser.feed(data[:size])
        assert not any(isinstance(event, End) for event in events)
        with pytest.raises(PrematureEndError, match="connection closed"):
            parser.eof()


@given(data=st.binary(max_size=200), name=st.sampled_from(ANSWERS), at=st.floats(0, 1), cuts=CUTS)
def test_mutated_bytes_give_events_or_a_declared_error(
    data: bytes, name: str, at: float, cuts: list[float]
) -> None:
    good = recorded(name)
    place = round(at * len(good))
    mutated = good[:place] + data + good[place + len(data) :]
    assert outcome(pieces(mutated, cuts), close=True) == outcome([mutated], close=True)


def test_a_head_is_told_with_lower_case_names_in_order() -> None:
    (head,) = ResponseParser().feed(b"HTTP/1.1 404 Not Here\r\nB-x:  1 \r\nA: \xe9\r\n\r\n")
    assert head == Head(404, "Not Here", (("b-x", "1"), ("a", "é")))
    assert isinstance(head, Head)
    assert (head.header("b-x"), head.header("c", "none")) == ("1", "none")


def test_the_chunks_of_one_feed_come_as_one_event() -> None:
    events = ResponseParser().feed(CHUNKED + b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")
    assert events[1:] == [Body((b"ab", b"cd")), End(keep_alive=True)]


def test_a_chunk_is_passed_on_before_it_is_whole() -> None:
    parser = ResponseParser()
    assert parser.feed(CHUNKED + b"10\r\nabc")[1:] == [Body((b"abc",))]
    assert parser.feed(b"def") == [Body((b"def",))]


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_keep_alive_follows_version_and_connection(head: bytes, kept: bool) -> None:
    assert ResponseParser().feed(head)[-1] == End(kept)


def test_an_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    assert outcome([b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n"], method="HEAD")[2] == [
        End(keep_alive=True)
    ]


def test_a_body_until_close_ends_with_the_connection_and_ends_it() -> None:
    parser = ResponseParser()
    parser.feed(SAMPLES["until close"])
    assert parser.eof() == [End(keep_alive=False)]
    assert parser.eof() == []


def test_bytes_after_the_end_are_told_and_not_parsed() -> None:
    parser = ResponseParser()
    assert parser.feed(SAMPLES["surplus"])[-1] == End(keep_alive=True)
    assert parser.surplus
    assert parser.done
    assert parser.feed(b"more") == []


def test_a_connection_closed_before_any_byte_is_told_apart() -> None:
    with pytest.raises(PrematureEndError) as unstarted:
        ResponseParser().eof()
    begun = ResponseParser()
    begun.feed(b"HTTP/1.1 2")
    with pytest.raises(PrematureEndError) as started:
        begun.eof()
    assert (unstarted.value.started, started.value.started) == (False, True)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSpace : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nFolded: x\r\n y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"1\r\nab\r\n",
        CHUNKED + b"1\r\na\rb",
        CHUNKED + b"0\r\nbad trailer\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
        CHUNKED + b"1" * 5000,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000,
        b"HTTP/1.1 200 OK\r\n" + b"A: x\r\n" * 200 + b"\r\n",
    ],
)
def test_malformed_answers_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ResponseParser().feed(data)


def test_a_mistake_tells_what_came_before_it() -> None:
    with pytest.raises(ProtocolError) as mistake:
        ResponseParser().feed(CHUNKED + b"2\r\nab\r\nzz\r\n")
    assert mistake.value.before[1:] == (Body((b"ab",)),)


@pytest.mark.parametrize("cut", range(len(b"3\r\nabcd\r\n")))
def test_an_overlong_chunk_is_told_up_to_its_size_however_cut(cut: int) -> None:
    data = b"3\r\nabcd\r\n"
    head, body, ends, mistake, _ = outcome([CHUNKED + data[:cut], data[cut:]])
    assert (body, ends, mistake) == (b"abc", [], "a chunk is longer than its size")
    assert head


def test_a_request_has_host_and_length_of_its_own() -> None:
    assert request_bytes("POST", "/completion", [("X-A", "1"), ("content-length", "99")], b"{}") == (
        b"POST /completion HTTP/1.1\r\nHost: localhost\r\nX-A: 1\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert request_bytes("GET", "/health", [("host", "h")]) == b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET X", "/", []),
        ("GET", "/a b", []),
        ("GET", "/\r\nX: y", []),
        ("GET", "", []),
        ("GET", "/", [("A", "1\r\nB: 2")]),
        ("GET", "/", [("A\r\n", "1")]),
        ("GET", "/", [("A", "\u0100")]),
    ],
)
def test_nothing_in_a_request_can_end_its_line(
    method: str, target: str, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(ValueError, match="no valid"):
        request_bytes(method, target, headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@given(
    name=st.sampled_from([*ANSWERS, *SAMPLES]),
    more=st.sampled_from([b"", b"x"]),
    less=st.sampled_from([0, 0, 1, 9]),
)
def test_an_answer_read_at_once_is_the_answer_that_the_states_read(
    method: str, name: str, more: bytes, less: int
) -> None:
    data = (recorded(name) if name in ANSWERS else SAMPLES[name]) + more
    data = data[: len(data) - less]
    at_once = ResponseParser(method).whole(data)
    event(f"at once: {at_once is not None}")
    if at_once is not None:
        head, body, end = at_once
        assert outcome([data], method=method) == ([head], body, [end], "", False)


def test_a_small_answer_is_read_at_once_and_leaves_the_parser_done() -> None:
    parser = ResponseParser("POST")
    head, body, end = parser.whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") or (None, b"", None)
    assert (head and head.status, body, end) == (200, b"ok", End(keep_alive=True))
    assert parser.done
    assert parser.feed(b"more") == []
    assert parser.surplus


def test_a_parser_goes_with_its_last_reference_and_not_with_the_garbage_collector() -> None:
    parser = ResponseParser()
    parser.feed(CHUNKED + b"2\r\nab\r\n")
    gone = weakref.ref(parser)
    gc.disable()
    try:
        del parser
        assert gone() is None
    finally:
        gc.enable()
