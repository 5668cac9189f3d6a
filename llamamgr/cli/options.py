"""A command's options as one frozen struct, for commands that have many.

Typer takes a command's options from the parameters of a function. Here they are the fields of a struct, annotated as parameters
would be: a table that can be read by itself, and one value to hand on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar, get_type_hints

import msgspec

_Asked = TypeVar("_Asked", bound=msgspec.Struct)


def taking(asked: type[_Asked]) -> Callable[[Callable[[_Asked], None]], Callable[..., None]]:
    """Make a command of a function that takes one ``asked``: its parameters are the fields, in their order."""

    def command_of(body: Callable[[_Asked], None]) -> Callable[..., None]:
        @functools.wraps(body)
        def command(**said: object) -> None:
            body(asked(**said))

        command.__signature__ = inspect.Signature(_parameters(asked))  # type: ignore[attr-defined]
        return command

    return command_of


def _parameters(asked: type[msgspec.Struct]) -> list[inspect.Parameter]:
    hints = get_type_hints(asked, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.required else field.default,
            annotation=hints[field.name],
        )
        for field in msgspec.structs.fields(asked)
    ]
