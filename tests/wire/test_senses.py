"""Media in the results of tools, for models that cannot take them."""

from __future__ import annotations

import pytest

from llamamgr.wire.neutral import MediaPart, Message, Part, TextPart
from llamamgr.wire.senses import has_media, perceived

IMAGE, SOUND, TEXT = MediaPart("AAAA"), MediaPart("AAAA", is_sound=True), TextPart("a")
UNSEEN, UNHEARD = "[an image, which this model cannot see]", "[a sound, which this model cannot hear]"


def result(*parts: Part) -> Message:
    return Message("tool", tool_call_id="1", tool_name="read", parts=parts)


def test_words_stand_in_the_place_of_what_a_model_cannot_take() -> None:
    (turn,) = perceived([result(TEXT, IMAGE, SOUND)], ("completion",))
    assert turn == Message("tool", f"a\n{UNSEEN}\n{UNHEARD}", tool_call_id="1", tool_name="read")
    assert not has_media([turn])


@pytest.mark.parametrize(
    ("capability", "parts"),
    [("vision", (TEXT, IMAGE, TextPart(UNHEARD))), ("audio", (TEXT, TextPart(UNSEEN), SOUND))],
)
def test_what_a_model_has_a_sense_for_stays(capability: str, parts: tuple[Part, ...]) -> None:
    assert perceived([result(TEXT, IMAGE, SOUND)], (capability,)) == (result(*parts),)
    everything = result(IMAGE, SOUND)
    assert perceived([everything], ("vision", "audio")) == (everything,)


def test_what_the_user_gave_is_left_to_be_refused() -> None:
    turns = (Message("user", parts=(IMAGE,)), Message("tool", "text"))
    assert perceived(turns, ()) == turns
    assert has_media(turns)
