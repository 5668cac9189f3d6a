"""Environments: one laid over another."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"(?P<before>:?)\$\{(?P<name>[A-Za-z_]\w*)\}(?P<after>:?)")


def laid_over(base: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """``base`` with ``extra`` over it; ``${NAME}`` in a value of ``extra`` is what ``base`` has.

    A reference to what is not set or empty goes with the ":" beside it: an empty element of a search path means the current folder.
    """

    def known(reference: re.Match[str]) -> str:
        before, after = reference["before"], reference["after"]
        value = base.get(reference["name"], "")
        return f"{before}{value}{after}" if value else (":" if before and after else "")

    return dict(base) | {key: _REFERENCE.sub(known, value) for key, value in extra.items()}
