"""A request's values brought into the ranges that a model's settings give (``core.sampling``)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llamamgr.core.sampling import FIELDS, NEVER_UNASKED, SPELLINGS, Number, Range, within


def clamping(given: Mapping[str, object], clamps: Mapping[str, Range]) -> dict[str, object]:
    """What must be laid over ``given``, fields of a request (values or raw JSON), so that no value lies outside ``clamps``.

    Each name that a value goes by is looked at, since endpoints differ in which they heed. What is no number counts as the
    engine's own default, and so does what nobody says: it is named only where that default lies outside.
    """
    changed: dict[str, object] = {}
    for name, clamp in clamps.items():
        said = [spelling for spelling in SPELLINGS[name] if is_said(given.get(spelling))]
        if not said and name not in NEVER_UNASKED:
            said = [name]
        for spelling in said:
            value = number_of(given.get(spelling))
            bounded = within(name, _default(name) if value is None else value, clamp)
            if bounded != (_default(name) if value is None else value):
                changed[spelling] = bounded
    return changed


def is_said(value: object) -> bool:
    """False for what is missing, and for ``null``, which the engine takes for missing."""
    return value is not None and not (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


def number_of(value: object) -> Number | None:
    """The number that ``value``, or the JSON in it, is; None for anything else."""
    if isinstance(value, msgspec.Raw):
        try:
            value = msgspec.json.decode(bytes(value))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _default(name: str) -> Number:
    default = FIELDS[name].default
    assert default is not None, "only what has a default can be clamped"
    return default
