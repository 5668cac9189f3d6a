"""A value of the configuration that is wrong: which key has it, and what is wrong with it in plain words."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]+)`(?P<bound>[^,]*)(?:, got `(?P<given>[^`]+)`)?\Z")
_LONGEST = 60
MEND = "mend that value; the README lists all keys"


class WrongValueError(ValueError):
    """``key`` is dotted, ``why`` says the rest of a sentence that begins with the key."""

    def __init__(self, key: str, why: str, hint: str = MEND, shown: object = None) -> None:
        super().__init__(f"{key}: {why}")
        self.key = key
        self.why = why
        self.hint = hint
        self.shown = _shown(shown)

    def told(self, origin: str, given: Mapping[str, str]) -> str:
        """The sentence; ``given`` are keys that came from elsewhere than ``origin``, with what gave them: a variable, an option."""
        place = given.get(self.key)
        name = place or f"{origin}: {self.key}"
        between = " " if place and place.startswith("-") else "=" if place else " = "
        value = self.shown if not place else self.shown.strip('"')
        return f"{name}{between + value if value else ''}: {self.why}"


def first_fault(data: Mapping[str, Any], struct: type[msgspec.Struct]) -> WrongValueError | None:
    """The first value of ``data`` that ``struct`` has no room for; None when each by itself would do."""
    return next(_faults_of_table(data, struct, ""), None)


def _faults_of_table(
    data: Mapping[str, Any], struct: type[msgspec.Struct], prefix: str
) -> Iterator[WrongValueError]:
    for field in msgspec.structs.fields(struct):
        if field.name in data:
            yield from _faults(data[field.name], field.type, f"{prefix}{field.name}")
        elif field.required:
            yield WrongValueError(
                f"{prefix}{field.name}", "is missing", "write it; the README lists all keys"
            )


def _faults(value: Any, wanted: Any, key: str) -> Iterator[WrongValueError]:
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct) and isinstance(value, Mapping):
        yield from _faults_of_table(value, wanted, f"{key}.")
    elif origin is dict and isinstance(value, Mapping):
        for name, each in value.items():
            yield from _faults(each, inner[1], f'{key}."{name}"')
    elif origin is tuple and isinstance(value, list):
        for number, each in enumerate(value, 1):
            yield from _faults(each, inner[0], f"{key}, item {number}")
    else:
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            yield WrongValueError(key, _in_words(str(error), wanted), shown=value)


def _in_words(said: str, wanted: Any) -> str:
    """What msgspec says of one value, for people who write TOML."""
    if said.startswith("Invalid enum value"):
        return f"must be one of {', '.join(typing.get_args(wanted))}"
    match = _EXPECTED.match(said)
    if match is None:
        return said
    given = f", not {_kinds(match['given'])}" if match["given"] else ""
    return f"must be {_kinds(match['wanted'])}{match['bound']}{given}"


def _kinds(said: str) -> str:
    *most, last = [_WORDS.get(kind, kind) for kind in said.split(" | ")]
    return f"{', '.join(most)} or {last}" if most else last


def _shown(value: object) -> str:
    """As it stands in the file, where it is short enough to be told; "" otherwise."""
    if not isinstance(value, str | int | float):
        return ""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else ""
