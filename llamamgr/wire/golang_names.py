"""Names of JSON fields as Go matches them: whatever their case (source: Go encoding/json, ``Unmarshal``).

Clients in languages that write ``Model`` for ``model`` rely on it. msgspec matches exactly, which is right for nearly all requests
and quick; so a body is spelt anew only when nothing in it was known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import msgspec

_Fold: TypeAlias = Callable[[Any], Any]


def respelt(body: bytes, kind: Hashable) -> bytes:
    """``body``, sound JSON, with the names of known fields as ``kind``, a struct, has them; itself where that changes nothing."""
    given = msgspec.json.decode(body)
    folded = _fold_of(kind)(given)
    if folded == given:
        return body
    try:
        return msgspec.json.encode(folded)
    except OverflowError:  # an integer of more than 64 bits, which no field can take
        return body


@functools.cache
def _fold_of(kind: Hashable) -> _Fold:
    from msgspec import inspect  # seldom needed

    return _folding(inspect.type_info(kind), {})


def _folding(info: Any, known: dict[type, _Fold]) -> _Fold:
    """What spells a value of a type anew; ``known`` are the structs that it is within."""
    from msgspec import inspect

    if isinstance(info, inspect.StructType):
        return known.get(info.cls) or _struct(info, known)
    if isinstance(info, inspect.ListType):
        each = _folding(info.item_type, known)
        return lambda value: [each(item) for item in value] if isinstance(value, list) else value
    if isinstance(info, inspect.UnionType):
        folds = [_folding(one, known) for one in info.types]
        return lambda value: functools.reduce(lambda folded, fold: fold(folded), folds, value)
    return lambda value: value


def _struct(info: Any, known: dict[type, _Fold]) -> _Fold:
    fields: dict[str, tuple[str, _Fold]] = {}

    def fold(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        folded = {}
        for name, inner in value.items():
            spelt, deeper = fields.get(name.lower(), (name, _same))
            folded[spelt] = deeper(inner)
        return folded

    known = {**known, info.cls: fold}
    for field in info.fields:
        fields[field.encode_name.lower()] = field.encode_name, _folding(field.type, known)
    return fold


def _same(value: Any) -> Any:
    return value
