"""Media keep their places in prompts that are made here, and their order where a template leaves some out."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from llamamgr.wire import placing
from llamamgr.wire.neutral import MediaPart, Message, Part, TextPart

MARKER = "<__media_x__>"


def shown(*turns: Message) -> tuple[str, tuple[str, ...]]:
    told, media = placing.tagged(turns)
    assert not any(turn.parts for turn in told)
    return placing.shown("|".join(turn.content for turn in told)), media


def test_images_come_before_the_text_or_where_it_says_so() -> None:
    turns = (
        Message("user", "what?", images=("a", "b")),
        Message("assistant", "who?"),
        Message("user", "is [img] like [img]?", images=("c", "d", "e")),
    )
    told = "[img-0][img-1]what?|who?|[img-4]is [img-2] like [img-3]?"
    assert shown(*turns) == (told, ("a", "b", "c", "d", "e"))


def test_parts_stay_in_order_and_texts_that_follow_each_other_are_lines() -> None:
    parts: tuple[Part, ...] = (
        TextPart("one"),
        TextPart("two"),
        MediaPart("a"),
        TextPart("three"),
        MediaPart("b"),
    )
    assert shown(Message("user", parts=parts)) == ("one\ntwo[img-0]three[img-1]", ("a", "b"))


def test_a_raw_prompt_names_its_images_and_those_it_does_not_name_come_first() -> None:
    def raw(prompt: str, *media: str) -> str:
        return placing.placed(placing.in_raw(prompt, media), media, MARKER)[0]

    assert raw("see [img-0]", "a") == f"see {MARKER}"
    assert placing.placed(placing.in_raw("[img-1] [img-0]", "ab"), "ab", MARKER)[1] == ["b", "a"]
    assert raw("see", "a", "b") == f"{MARKER}{MARKER}see"
    assert raw("[img-0] [img-0] [img-7]", "a") == f"{MARKER} [img-0] [img-7]"  # the others are text
    assert raw("[img-0]") == "[img-0]"


def test_what_the_engine_rendered_has_tags_for_its_markers() -> None:
    told = placing.from_markers(f"a{MARKER}b{MARKER}", MARKER)
    assert placing.shown(told) == "a[img-0]b[img-1]"
    assert placing.placed(told, "xy", MARKER) == (f"a{MARKER}b{MARKER}", ["x", "y"])
    assert placing.without_tags(told) == "ab"


def test_an_image_that_a_template_left_out_is_not_sent() -> None:
    [first, second], media = placing.tagged(
        [Message("user", "1", images=("a",)), Message("user", "2", images=("b",))]
    )
    assert placing.placed(second.content, media, MARKER) == (f"{MARKER}2", ["b"])
    assert placing.placed(second.content + first.content, media, MARKER)[1] == ["b", "a"]
    assert placing.placed(first.content * 2, media, MARKER)[1] == ["a", "a"]


TEXTS = st.text(alphabet=st.sampled_from("ab[img-0] \n<>"), max_size=12)


@given(st.lists(st.tuples(TEXTS, st.lists(st.text("xyz", min_size=1), max_size=3)), max_size=4))
def test_every_image_is_placed_once_and_no_text_is_lost(turns: list[tuple[str, list[str]]]) -> None:
    told, media = placing.tagged([Message("user", text, images=tuple(images)) for text, images in turns])
    prompt, order = placing.placed("".join(turn.content for turn in told), media, MARKER)
    assert sorted(order) == sorted(image for _, images in turns for image in images)
    assert prompt.count(MARKER) == len(order)
    said = "".join(text for text, _ in turns)
    for turn, (text, images) in zip(told, turns, strict=True):
        assert placing.without_tags(turn.content).count("[img]") == max(0, text.count("[img]") - len(images))
    assert re.sub(r"\[img\]", "", prompt.replace(MARKER, "")) == re.sub(r"\[img\]", "", said)
