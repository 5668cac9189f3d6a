"""Server-sent events: the standard's rules, llama-server's habits, and any cut of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire.errors import ProtocolError
from llamamgr.wire.sse import Event, SseParser, sse
from tests.wire.streams import CHATS, CUTS, body, pieces, single_bytes


def events(parts: list[bytes]) -> list[Event]:
    parser = SseParser()
    return [event for part in parts for event in parser.feed(part)]


@pytest.mark.parametrize("name", CHATS)
@given(cuts=CUTS)
def test_any_cut_of_a_real_stream_gives_the_same_events(name: str, cuts: list[float]) -> None:
    data = body(name)
    assert events(pieces(data, cuts)) == events([data])


# an alphabet of what matters to the grammar, so that line ends of all kinds meet
_PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"data:", b"data: ", b":", b"event: e", b"x", b" "])
)


@given(parts=_PIECES, cuts=CUTS)
def test_any_cut_of_any_lines_gives_the_same_events(parts: list[bytes], cuts: list[float]) -> None:
    data = b"".join(parts)
    assert events(pieces(data, cuts)) == events([data]) == events(single_bytes(data))


@given(parts=_PIECES)
def test_the_three_line_ends_mean_the_same(parts: list[bytes]) -> None:
    data = b"".join(parts).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert events([data.replace(b"\n", b"\r\n")]) == events([data.replace(b"\n", b"\r")]) == events([data])


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"data: a\n\n", [Event("", b"a")]),
        (b"data:a\n\ndata:  b\n\n", [Event("", b"a"), Event("", b" b")]),
        (b"data: a\ndata: b\n\n", [Event("", b"a\nb")]),
        (b"event: e\ndata: a\nid: 1\nretry: 5\nwhat: x\n\n", [Event("e", b"a")]),
        (b":\n\n: ping\ndata: a\n\n", [Event("", b"a")]),
        (b"\n\n\ndata: a\n\n\n\n", [Event("", b"a")]),
        (b"event: e\n\n", []),
        (b"data\n\n", [Event("", b"")]),
        (b"data: a\n", []),
        (b'error: {"code":500}\n\n', [Event("error", b'{"code":500}')]),
    ],
)
def test_fields_become_events_as_the_standard_says(data: bytes, wanted: list[Event]) -> None:
    assert events([data]) == wanted


def test_an_event_leaves_as_soon_as_its_blank_line_is_there() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == [Event("", b"a")]
    assert parser.feed(b"\n") == []
    assert not parser.pending


def test_an_unfinished_event_is_pending_and_none() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n\ndata: b\n") == [Event("", b"a")]
    assert parser.pending


def test_an_endless_event_is_refused_with_what_came_before_it() -> None:
    with pytest.raises(ProtocolError, match="longer than 10 bytes") as mistake:
        SseParser(max_event=10).feed(b"data: a\n\ndata: " + b"x" * 20)
    assert mistake.value.before == (Event("", b"a"),)


@given(
    data=st.text(st.characters(codec="utf-8", exclude_characters="\r")),
    name=st.sampled_from(["", "message_start"]),
)
def test_what_is_written_is_what_is_read(data: str, name: str) -> None:
    assert events([sse(data.encode(), name)]) == [Event(name, data.encode())]
