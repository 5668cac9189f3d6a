"""The comparison itself: equal to its own record, and not blind."""

from __future__ import annotations

import pytest

from tests.golden.replay import DEVIATIONS, Exchange, difference, load, merged, normalise, read_body

EVERYTHING = load()


def told(exchange: Exchange, text: str) -> str:
    return difference(exchange, exchange.status, exchange.answer_headers.get("content-type", ""), text)


@pytest.mark.parametrize("exchange", EVERYTHING, ids=lambda exchange: exchange.name)
def test_a_record_agrees_with_itself_and_with_nothing_else(exchange: Exchange):
    assert told(exchange, exchange.answer) == ""
    assert "body" in told(exchange, '{"other": 1}')
    assert "status" in difference(exchange, 418, exchange.content_type, exchange.answer)


def test_deviations_name_recorded_exchanges_and_have_a_reason():
    assert set(DEVIATIONS) <= {exchange.name for exchange in EVERYTHING}
    assert all(DEVIATIONS.values())


def test_streams_may_be_cut_elsewhere_but_not_say_something_else():
    (chat,) = load(["chat-stream"])
    lines = chat.answer.splitlines(keepends=True)
    first = lines[0].replace('"content":"', '"content":"', 1)
    assert told(chat, "".join([first, *lines[1:]])) == ""
    assert told(chat, "".join(lines[1:]))
    assert told(chat, "".join(lines[:-1]))


def test_pieces_join_to_one_text():
    cut = [
        {"message": {"content": "Hel"}},
        {"message": {"content": "lo"}},
        {"message": {"content": ""}, "done": True},
    ]
    whole = [{"message": {"content": "Hello"}}, {"message": {"content": ""}, "done": True}]
    assert merged(cut) == merged(whole)


def test_volatile_values_are_stars_only_where_there_is_one():
    assert normalise({"created_at": "now", "id": None, "x": 0.12345}) == {
        "created_at": "*",
        "id": None,
        "x": 0.123,
    }
    assert normalise("sha256:" + "a" * 64) == "HEX"


def test_event_streams_keep_their_event_names_and_their_end():
    text = 'event: a\ndata: {"x": 1}\n\n: comment\n\ndata: [DONE]\n\n'
    assert read_body(text, "text/event-stream; charset=utf-8") == ["event: a", {"x": 1}, "data: [DONE]"]
