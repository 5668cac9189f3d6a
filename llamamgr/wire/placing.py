"""Media in prompts that are made here: a tag stands for each in the text, and for the tag the engine's marker once it is asked.

A tag is nothing that anybody types. Ollama's is ``[img-0]``: so it may stand in a raw prompt, and so it is shown.
llama-server wants as many markers as media, in the same order, so a tag that a template has left out takes its medium along.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from llamamgr.wire.neutral import Message, TextPart

_TAG = re.compile("\ue000img-([0-9]{1,9})\ue000")
_SHOWN = re.compile(r"\[img-([0-9]{1,9})\]")
_PLACE = "[img]"


def tagged(turns: Iterable[Message]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """``turns`` with tags in their ``content`` for all media, and these (base64), the first being number 0.

    Among parts a tag stands where its medium stood. Images beside a text come before it, or where it says ``[img]``, as
    in Ollama (source: server/prompt.go).
    """
    media: list[str] = []
    return tuple([_tagged(turn, media) for turn in turns]), tuple(media)


def in_raw(prompt: str, media: Sequence[str]) -> str:
    """``prompt`` with tags where it says ``[img-0]`` …; those of media that it does not name come before it."""
    named: set[int] = set()

    def tag(found: re.Match[str]) -> str:
        number = int(found[1])
        if number in named or number >= len(media):
            return found[0]
        named.add(number)
        return _tag(number)

    text = _SHOWN.sub(tag, prompt)
    return "".join(_tag(number) for number in range(len(media)) if number not in named) + text


def from_markers(prompt: str, marker: str) -> str:
    """``prompt`` as the engine rendered it, with a tag for each of its markers, in order."""
    first, *others = prompt.split(marker)
    return first + "".join(_tag(number) + text for number, text in enumerate(others))


def shown(prompt: str) -> str:
    """``prompt`` with tags as Ollama writes them."""
    return _TAG.sub(lambda found: f"[img-{found[1]}]", prompt)


def without_tags(prompt: str) -> str:
    return _TAG.sub("", prompt)


def placed(prompt: str, media: Sequence[str], marker: str) -> tuple[str, list[str]]:
    """``prompt`` with a ``marker`` for each tag, and the media in the order of these."""
    order: list[str] = []

    def mark(found: re.Match[str]) -> str:
        number = int(found[1])
        if number >= len(media):
            return found[0]
        order.append(media[number])
        return marker

    return _TAG.sub(mark, prompt), order


def _tagged(turn: Message, media: list[str]) -> Message:
    if turn.parts:
        return msgspec.structs.replace(turn, content=_joined(turn, media), parts=())
    if not turn.images:
        return turn
    before, text = "", turn.content
    for image in turn.images:
        tag = _taken(image, media)
        if _PLACE in text:
            text = text.replace(_PLACE, tag, 1)
        else:
            before += tag
    return msgspec.structs.replace(turn, content=before + text)


def _joined(turn: Message, media: list[str]) -> str:
    """Text and tags in order; texts that follow each other are lines."""
    text, is_after_text = "", False
    for part in turn.parts:
        is_text = isinstance(part, TextPart)
        between = "\n" if is_text and is_after_text else ""
        text += between + (part.text if isinstance(part, TextPart) else _taken(part.data, media))
        is_after_text = is_text
    return text


def _taken(medium: str, media: list[str]) -> str:
    media.append(medium)
    return _tag(len(media) - 1)


def _tag(number: int) -> str:
    return f"\ue000img-{number}\ue000"
