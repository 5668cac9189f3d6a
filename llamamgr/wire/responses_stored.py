"""Items of stored responses: as they are kept, listed in pages, and referred to by their ids.

Facts: OpenAI's Responses API, ``GET /v1/responses/{id}/input_items`` and ``item_reference``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.errors import DialectError
from llamamgr.wire.responses_items import Item

_PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "custom_tool_call": "ctc_",
    "custom_tool_call_output": "ctco_",
}
_LONGEST_ID = 128
_MOST, _USUAL = 100, 20


class Stored(msgspec.Struct, frozen=True):
    """One item; ``data`` is its JSON, which has ``id`` too."""

    id: str
    data: bytes


class Page(msgspec.Struct, frozen=True):
    """What part of a list is asked for: so many after the item of that id, "" for the first ones."""

    limit: int = _USUAL
    ascending: bool = False
    after: str = ""


def full(item: Item, raw: msgspec.Raw) -> Mapping[str, Any]:
    """An input item, ``raw`` being its JSON, with what may be left out of one but is always told of a listed one.

    Nothing is read that ``item`` was not: what a client adds of its own stays as it wrote it.
    """
    given = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    kind = item.type or "message"
    told: dict[str, Any] = {"status": "completed", **given, "type": kind, "id": item.id}
    if kind == "message":
        told["role"] = item.role or "user"
        told["content"] = _content(item, given.get("content", msgspec.Raw(b"[]")))
    elif kind == "reasoning" and not item.summary:
        told["summary"] = []
    return told


def _content(item: Item, raw: msgspec.Raw) -> list[Any]:
    if isinstance(item.content, str):
        kind = "output_text" if item.role == "assistant" else "input_text"
        return [_part(kind, {"text": item.content})]
    raws = msgspec.json.decode(raw, type=list[msgspec.Raw]) if item.content else []
    return [
        _part(part.type, msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))
        for part, raw in zip(item.content or (), raws, strict=True)
    ]


def _part(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
    return {**more, **fields, "type": kind}


def stored(
    given: Iterable[Mapping[str, Any]], new_id: Callable[[], str], taken: Iterable[str] = ()
) -> tuple[Stored, ...]:
    """Full input items to be kept. One keeps the id that it comes with, unless that is among ``taken`` or comes twice."""
    found: list[Stored] = []
    seen = set(taken)
    for item in given:
        id = item["id"]  # noqa: A001 - the field's name
        if not id or len(id) > _LONGEST_ID or id in seen:
            id = f"{_PREFIXES.get(item['type'], 'item_')}{new_id()}"  # noqa: A001
        seen.add(id)
        found.append(Stored(id, msgspec.json.encode({**item, "id": id})))
    return tuple(found)


def outputs(response: Mapping[str, Any]) -> tuple[Stored, ...]:
    """The output items of a response object."""
    return tuple(Stored(item["id"], msgspec.json.encode(item)) for item in response["output"])


def page_of(query: Mapping[str, str]) -> Page:
    """The page that a query asks for; ``DialectError`` 400 for one that cannot be."""
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise DialectError(400, f"order must be asc or desc, not {order[:80]!r}", param="order")
    given = query.get("limit", str(_USUAL))
    if not (given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= _MOST):
        raise DialectError(
            400, f"limit must be a number from 1 to {_MOST}, not {given[:80]!r}", param="limit"
        )
    return Page(int(given), order == "asc", query.get("after", ""))


def page_answer(items: Sequence[Stored], page: Page) -> bytes:
    """A list object; ``items`` are in ascending order. ``DialectError`` 400 when there is none of the id ``after``."""
    ordered = items if page.ascending else items[::-1]
    start = 0
    if page.after:
        places = [place for place, item in enumerate(ordered) if item.id == page.after]
        if not places:
            raise DialectError(400, f"there is no item '{page.after[:80]}' to list after", param="after")
        start = places[0] + 1
    told = ordered[start : start + page.limit]
    return golang.encode(
        {
            "object": "list",
            "data": [msgspec.Raw(item.data) for item in told],
            "first_id": told[0].id if told else None,
            "last_id": told[-1].id if told else None,
            "has_more": start + page.limit < len(ordered),
        }
    )
