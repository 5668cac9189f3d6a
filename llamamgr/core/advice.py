"""What a person is told of settings that can be read, and that will not do what they are there for as things are."""

from __future__ import annotations

import msgspec


class Advice(msgspec.Struct, frozen=True):
    """``key`` is dotted, or the variable that gave the value; ``what`` is wrong with it, and ``hint`` the next step."""

    key: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.key}: {self.what}"
