"""What Go reads where msgspec would not (source: Go encoding/json, ``Unmarshal``).

Names of fields are known whatever their case, and the last one counts: clients in languages that write ``Model`` for ``model``
rely on it. ``null`` is the zero of any type, in lists too. Nearly all requests have neither, so a body is looked through only where
it may: all of it is decoded and encoded once more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import msgspec

_Read: TypeAlias = Callable[[Any], Any]

# a key with a capital letter, none longer than any field's; in a string its quotes would be escaped. Nothing is looked at twice: an
# image is one long run of letters
_CAPITALS = re.compile(rb'"([a-z_]{0,31}+[A-Z][A-Za-z_]{0,31}+)"\s*+:')


def is_in_capitals(body: bytes, kind: Hashable) -> bool:
    """Whether anything in ``body`` may be a field of ``kind``, a struct, or of what that holds, spelt with other capitals."""
    if body.islower():
        return False
    found = _CAPITALS.findall(body)
    return bool(found) and not _names_of(kind).isdisjoint(name.lower() for name in found)


def as_go_reads(body: bytes, kind: Hashable, *, nulls: bool = True) -> bytes:
    """``body``, sound JSON, with the names of known fields as ``kind`` has them, and zeros for ``nulls`` where no null may be.

    Itself where that changes nothing.
    """
    try:
        given = msgspec.json.decode(body)
        read = _reader(kind, nulls)(given)
        return body if read == given else msgspec.json.encode(read)
    except (msgspec.DecodeError, OverflowError, RecursionError):
        return body  # such as an integer of more than 64 bits, which no field can take


@functools.cache
def _names_of(kind: Hashable) -> frozenset[bytes]:
    """The names of all fields, in small letters."""
    from msgspec import inspect  # seldom needed

    found: set[bytes] = set()
    seen: set[type] = set()
    due: list[Any] = [inspect.type_info(kind)]
    while due:
        info = due.pop()
        due += [*getattr(info, "types", ()), *filter(None, [getattr(info, "item_type", None)])]
        if isinstance(info, inspect.StructType) and info.cls not in seen:
            seen.add(info.cls)
            found.update(field.encode_name.lower().encode() for field in info.fields)
            due += [field.type for field in info.fields]
    return frozenset(found)


@functools.cache
def _reader(kind: Hashable, nulls: bool) -> _Read:
    from msgspec import inspect

    return _reading(inspect.type_info(kind), {}, nulls)


def _reading(info: Any, known: dict[type, _Read], nulls: bool) -> _Read:
    """What reads a value of a type; ``known`` are the structs that it is within."""
    from msgspec import inspect

    if isinstance(info, inspect.StructType):
        return known.get(info.cls) or _struct(info, known, nulls)
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        each, zero = _reading(info.item_type, known, nulls), _zero(info.item_type)
        is_zeroed = nulls and zero is not None
        return lambda value: (
            [zero if item is None and is_zeroed else each(item) for item in value]
            if isinstance(value, list)
            else value
        )
    if isinstance(info, inspect.DictType):
        zero = _zero(info.value_type)
        if not nulls or zero is None:
            return _same
        return lambda value: (
            {key: zero if inner is None else inner for key, inner in value.items()}
            if isinstance(value, dict)
            else value
        )
    if isinstance(info, inspect.UnionType):
        reads = [_reading(one, known, nulls) for one in info.types]
        return lambda value: functools.reduce(lambda read, one: one(read), reads, value)
    return _same


def _struct(info: Any, known: dict[type, _Read], nulls: bool) -> _Read:
    fields: dict[str, tuple[str, _Read, bool]] = {}

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        found: dict[str, Any] = {}
        for name, inner in value.items():
            spelt, deeper, is_passed_over = fields.get(name.lower(), (name, _same, False))
            if inner is not None or not is_passed_over:
                found[spelt] = deeper(inner)
        return found

    known = {**known, info.cls: read}
    for field in info.fields:
        is_passed_over = nulls and _zero(field.type) is not None
        fields[field.encode_name.lower()] = (
            field.encode_name,
            _reading(field.type, known, nulls),
            is_passed_over,
        )
    return read


def _zero(info: Any) -> Any:
    """What Go has for a null where msgspec takes none; None where it does."""
    from msgspec import inspect

    zeros: dict[type, Any] = {
        inspect.StrType: "",
        inspect.IntType: 0,
        inspect.FloatType: 0.0,
        inspect.BoolType: False,
    }
    if isinstance(info, inspect.StructType | inspect.DictType):
        return {}
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        return []
    return zeros.get(type(info))


def _same(value: Any) -> Any:
    return value
