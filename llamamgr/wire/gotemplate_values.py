"""Values as Go's templates see them: truth, printing, comparison, and the functions of ``text/template`` and Ollama.

A Go struct is a ``Record``, a value with a ``String`` method one that has ``shown``; maps are dicts, slices lists. Facts:
text/template exec.go and funcs.go, fmt, and Ollama's template.go (``json``, ``currentDate``, ``toTypeScriptType``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from llamamgr.wire import golang
from llamamgr.wire.gotemplate_lexer import TemplateError

FUNCTIONS = frozenset(
    (
        *("and", "or", "not", "len", "index", "slice", "print", "printf", "println"),
        *("eq", "ne", "lt", "le", "gt", "ge"),
        *("json", "currentDate", "yesterdayDate", "toTypeScriptType"),
    )
)
# Go has them too; what they do makes no sense in a prompt
UNSUPPORTED = ("call", "html", "js", "urlquery")
_LONGEST_RANGE = 10_000


class Record(msgspec.Struct, frozen=True):
    """A Go struct: ``kind`` is its type's name, ``json`` what marshalling gives; printed as that when ``is_shown_as_json``."""

    kind: str
    fields: Mapping[str, Any]
    json: str = "{}"
    is_shown_as_json: bool = False


class Listed(list[Any]):
    """A slice that prints as JSON: Ollama's ``api.Tools``."""

    json = "[]"


class Object(dict[str, Any]):
    """A map that prints as JSON, with the keys in the order in which they came."""

    json = "{}"


class _Missing:
    """A key that a map does not have."""


MISSING = _Missing()


def truth(value: Any) -> bool:
    """Go's: false, 0, "", nil and what is empty are false; a struct is true."""
    if value is None or value is MISSING:
        return False
    return True if isinstance(value, Record) else bool(value)


def shown(value: Any) -> str:
    """What ``{{ value }}`` writes."""
    if value is None or value is MISSING:
        return "<no value>"
    return _formatted(value)


def _formatted(value: Any) -> str:
    """``%v``."""
    match value:
        case None:
            return "<nil>"
        case _Missing():
            return "<no value>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
        case float():
            return bytes(golang.number(value)).decode()
        case Record() if value.is_shown_as_json:
            return value.json
        case Listed() | Object():
            return value.json
        case Record():
            return "{" + " ".join(_formatted(field) for field in value.fields.values()) + "}"
        case Mapping():
            return "map[" + " ".join(f"{key}:{_formatted(value[key])}" for key in sorted(value)) + "]"
        case _:
            return "[" + " ".join(_formatted(item) for item in value) + "]"


def as_json(value: Any) -> str:
    """The function ``json``. ``<``, ``>`` and ``&`` stay as they are: a model reads them better than escapes."""
    if isinstance(value, Record | Listed | Object):
        return value.json
    if value is MISSING:
        return "null"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{as_json(str(key))}:{as_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_json, value)) + "]"
    if isinstance(value, float):
        return bytes(golang.number(value)).decode()
    return msgspec.json.encode(value).decode()


def field(value: Any, name: str) -> Any:
    """``value.name``; a map without the key gives ``MISSING``, a struct without the field is an error."""
    match value:
        case Record() if name in value.fields:
            return value.fields[name]
        case Record():
            raise TemplateError(f"can't evaluate field {name} in type {value.kind}")
        case Mapping():
            return value.get(name, MISSING)
        case _Missing():
            return MISSING
        case None:
            raise TemplateError(f"nil pointer evaluating interface {{}}.{name}")
        case _:
            raise TemplateError(f"can't evaluate field {name} in type {_kind(value)}")


def elements(value: Any) -> list[tuple[Any, Any]]:
    """Key and value of what ``range`` goes through; a map's keys are sorted, unless they have an order."""
    match value:
        case None | _Missing():
            return []
        case bool() | str() | float() | Record():
            raise TemplateError(f"range can't iterate over {_formatted(value)}")
        case int() if value > _LONGEST_RANGE:
            raise TemplateError(f"range over {value:,} numbers")
        case int():
            return [(number, number) for number in range(value)]
        case Object():
            return list(value.items())
        case Mapping():
            return [(key, value[key]) for key in sorted(value)]
        case _:
            return list(enumerate(value))


def call(name: str, arguments: Sequence[Any], dates: tuple[str, str]) -> Any:
    """Call a function other than ``and`` and ``or``, which do not evaluate all they are given.

    ``dates`` are today and yesterday as ``2026-11-20``.
    """
    if name in ("currentDate", "yesterdayDate"):
        if arguments:
            raise TemplateError(f"wrong number of args for {name}: want 0 got {len(arguments)}")
        return dates[name == "yesterdayDate"]
    if name in ("print", "println", "printf"):
        return _PRINTERS[name]([None if value is MISSING else value for value in arguments])
    if not arguments:
        raise TemplateError(f"wrong number of args for {name}: want at least 1 got 0")
    function = _TABLE[name]
    try:
        return function(*arguments)
    except TypeError as error:
        if "positional argument" in str(error):
            raise TemplateError(f"wrong number of args for {name}: got {len(arguments)}") from None
        raise TemplateError(f"error calling {name}: {error}") from None


def _kind(value: Any) -> str:
    names = {bool: "bool", str: "string", int: "int", float: "float64"}
    if isinstance(value, Mapping):
        return "map[string]interface {}"
    return names.get(type(value)) or ("[]interface {}" if isinstance(value, list) else "interface {}")


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | tuple | dict):
        return len(value)
    raise TemplateError(f"error calling len: len of type {_kind(value)}")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            if not isinstance(key, str):
                raise TemplateError(f"error calling index: value has type {_kind(key)}; should be string")
            value = value.get(key, MISSING)
            continue
        items: Sequence[Any] = value.encode() if isinstance(value, str) else value
        if not isinstance(items, list | tuple | bytes):
            raise TemplateError(f"error calling index: can't index item of type {_kind(value)}")
        value = items[_place(key, len(items) - 1, "index")]
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    data = value.encode() if isinstance(value, str) else value
    if not isinstance(data, list | tuple | bytes) or len(bounds) > 2:
        raise TemplateError(f"error calling slice: can't slice item of type {_kind(value)}")
    low, high, *_ = [*(_place(bound, len(data), "slice") for bound in bounds), *(0, len(data))[len(bounds) :]]
    if low > high:
        raise TemplateError(f"error calling slice: invalid slice index: {low} > {high}")
    part = data[low:high]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _place(key: Any, last: int, name: str) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise TemplateError(f"error calling {name}: cannot index slice/array with type {_kind(key)}")
    if not 0 <= key <= last:
        raise TemplateError(f"error calling {name}: index out of range: {key}")
    return key


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("error calling eq: missing argument for comparison")
    return any(_same(first, other) for other in others)


def _same(one: Any, other: Any) -> bool:
    if one is None or one is MISSING or other is None or other is MISSING:
        return one in (None, MISSING) and other in (None, MISSING)
    _comparable("eq", one, other)
    return bool(one == other)


def _less(one: Any, other: Any) -> bool:
    _comparable("lt", one, other)
    if isinstance(one, bool):
        raise TemplateError("error calling lt: invalid type for comparison")
    return bool(one < other)


def _comparable(name: str, one: Any, other: Any) -> None:
    if isinstance(one, list | dict | Record) or isinstance(other, list | dict | Record):
        raise TemplateError(f"error calling {name}: non-comparable type {_formatted(one)}: {_kind(one)}")
    if type(one) is not type(other):
        raise TemplateError(f"error calling {name}: incompatible types for comparison")


def _print(arguments: Sequence[Any]) -> str:
    """``fmt.Sprint``: a space between two operands neither of which is a string."""
    text = ""
    for place, value in enumerate(arguments):
        if place and not isinstance(value, str) and not isinstance(arguments[place - 1], str):
            text += " "
        text += _formatted(value)
    return text


def _print_line(arguments: Sequence[Any]) -> str:
    return " ".join(map(_formatted, arguments)) + "\n"


_NO_MORE = object()
_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?([a-zA-Z%])")


def _printf(arguments: Sequence[Any]) -> str:
    if not arguments or not isinstance(arguments[0], str):
        raise TemplateError("error calling printf: the format must be a string")
    rest = iter(arguments[1:])

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        value = next(rest, _NO_MORE)
        if value is _NO_MORE:
            return f"%!{verb}(MISSING)"
        text = _verb(verb, value, precision)
        room = min(int(width or 0), 1000)
        if "-" in flags:
            return text.ljust(room)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return text.zfill(room) if "0" in flags and is_number else text.rjust(room)

    text = _VERB.sub(one, arguments[0])
    extra = ", ".join(f"{_kind(value)}={_formatted(value)}" for value in rest)
    return f"{text}%!(EXTRA {extra})" if extra else text


def _verb(verb: str, value: Any, precision: str | None) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match verb:
        case "q" if isinstance(value, str):
            return golang.quote(value.encode())
        case "v":
            return _formatted(value)
        case "s" if isinstance(value, str):
            return value if precision is None else value[: int(precision)]
        case "s" if isinstance(value, Record | Listed | Object):
            return _formatted(value)
        case _ if isinstance(value, Mapping):
            inner = " ".join(
                f"{_verb(verb, key, None)}:{_verb(verb, value[key], None)}" for key in sorted(value)
            )
            return f"map[{inner}]"
        case _ if isinstance(value, list | tuple):
            return "[" + " ".join(_verb(verb, item, None) for item in value) + "]"
        case "d" if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        case "f" if is_number:
            return f"{float(value):.{min(int(precision or 6), 100)}f}"
        case "g" if is_number:
            return _formatted(float(value))
        case "x" if isinstance(value, int):
            return f"{value:x}"
        case "t" if isinstance(value, bool):
            return _formatted(value)
        case _:
            return f"%!{verb}(<nil>)" if value is None else f"%!{verb}({_kind(value)}={_formatted(value)})"


def _typescript(value: Any) -> str:
    """A JSON schema's type, or list of types, as TypeScript says it."""
    names = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean"}
    names |= {"array": "any[]", "object": "Record<string, any>", "null": "null"}
    kinds = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return " | ".join(dict.fromkeys(names.get(str(kind), "any") for kind in kinds)) or "any"


_PRINTERS: dict[str, Callable[[Sequence[Any]], str]] = {
    "print": _print,
    "println": _print_line,
    "printf": _printf,
}
_TABLE: dict[str, Callable[..., Any]] = {
    "not": lambda value: not truth(value),
    "len": _length,
    "index": _index,
    "slice": _slice,
    "eq": _equal,
    "ne": lambda one, other: not _same(one, other),
    "lt": _less,
    "le": lambda one, other: _less(one, other) or _same(one, other),
    "gt": lambda one, other: not (_less(one, other) or _same(one, other)),
    "ge": lambda one, other: not _less(one, other),
    "json": as_json,
    "toTypeScriptType": _typescript,
}
