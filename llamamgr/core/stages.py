"""What a long piece of work says of itself as it goes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Stage(msgspec.Struct, frozen=True):
    """``done`` of ``total`` parts (0 = not countable) of what ``title`` names; with a ``note`` only that: a line worth keeping.

    ``counted`` parts are things that are worth telling beside the percentage.
    """

    title: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    counted: bool = False


Tell = Callable[[Stage], None]
