"""What a request may say about sampling, by llama.cpp's own names, and what a model's settings may lay under and around it.

``defaults`` hold where a request says nothing; ``clamps`` bring what is said into a range. Names, kinds and defaults are those of
llama.cpp's completion schema (tools/server/server-schema.cpp and common/common.h, b11434); the other dialects' names for the same
thing are understood too.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from llamamgr.core.errors import ConfigError

Number: TypeAlias = int | float
# lowest (None = none) and highest value
Range: TypeAlias = tuple[Number | None, Number]


class Field(msgspec.Struct, frozen=True):
    """One setting. ``default`` is the engine's own, None where no range makes sense; values up to ``unlimited`` mean no limit."""

    kind: Literal["integer", "number", "boolean", "text", "texts"]
    default: Number | None = None
    unlimited: Number | None = None


FIELDS: dict[str, Field] = {
    "temperature": Field("number", 0.8),
    "dynatemp_range": Field("number", 0.0),
    "dynatemp_exponent": Field("number", 1.0),
    "top_k": Field("integer", 40, unlimited=0),
    "top_p": Field("number", 0.95),
    "min_p": Field("number", 0.05),
    "top_n_sigma": Field("number", -1.0),
    "typical_p": Field("number", 1.0),
    "xtc_probability": Field("number", 0.0),
    "xtc_threshold": Field("number", 0.1),
    "repeat_last_n": Field("integer", 64, unlimited=-1),
    "repeat_penalty": Field("number", 1.0),
    "presence_penalty": Field("number", 0.0),
    "frequency_penalty": Field("number", 0.0),
    "dry_multiplier": Field("number", 0.0),
    "dry_base": Field("number", 1.75),
    "dry_allowed_length": Field("integer", 2),
    "dry_penalty_last_n": Field("integer", 64, unlimited=-1),
    "dry_sequence_breakers": Field("texts"),
    "mirostat": Field("integer", 0),
    "mirostat_tau": Field("number", 5.0),
    "mirostat_eta": Field("number", 0.1),
    "adaptive_target": Field("number", -1.0),
    "adaptive_decay": Field("number", 0.9),
    "min_keep": Field("integer", 0),
    "samplers": Field("texts"),
    "seed": Field("integer"),
    "n_predict": Field("integer", -1, unlimited=-1),
    "n_keep": Field("integer", 0, unlimited=-1),
    "n_discard": Field("integer", 0),
    "n_indent": Field("integer", 0),
    "t_max_predict_ms": Field("integer", -1, unlimited=0),
    "reasoning_budget_tokens": Field("integer", -1, unlimited=-1),
    "stop": Field("texts"),
    "grammar": Field("text"),
    "ignore_eos": Field("boolean"),
    "cache_prompt": Field("boolean"),
    "n": Field("integer", 1),
}
# a dialect shows one answer unless it is asked for more, so nobody can be given more unasked
NEVER_UNASKED = frozenset({"n"})
# other dialects' names, and the engine's own aliases
ALIASES = {
    "max_tokens": "n_predict",
    "max_completion_tokens": "n_predict",
    "max_output_tokens": "n_predict",
    "num_predict": "n_predict",
    "num_keep": "n_keep",
    "thinking_budget_tokens": "reasoning_budget_tokens",
    "n_cmpl": "n",
}
# each name with all that it goes by
SPELLINGS: dict[str, tuple[str, ...]] = {
    name: (name, *(alias for alias, meant in ALIASES.items() if meant == name)) for name in FIELDS
}


def parse_defaults(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``table`` by the engine's names; ``ConfigError`` names the key (``where`` is what comes before it) that is wrong."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = _known(key, where, found)
        if name in NEVER_UNASKED:
            raise ConfigError(f"{where}.{key} cannot have a default", "a client asks for more answers itself")
        found[name] = _checked(value, FIELDS[name].kind, f"{where}.{key}")
    return found


def parse_clamps(table: Mapping[str, Any], where: str) -> dict[str, Range]:
    """``table`` by the engine's names, a number being the highest value and a pair the lowest and highest; errors as above."""
    found: dict[str, Range] = {}
    for key, value in table.items():
        name = _known(key, where, found)
        field = FIELDS[name]
        if field.default is None:
            raise ConfigError(f"{where}.{key} cannot be clamped", "clamps are for numbers that have an order")
        found[name] = _range(value, field.kind, f"{where}.{key}")
    return found


def check_together(defaults: Mapping[str, Any], clamps: Mapping[str, Range], where: str) -> None:
    """``ConfigError`` for a default that lies outside its clamp."""
    for name in defaults.keys() & clamps.keys():
        if within(name, defaults[name], clamps[name]) != defaults[name]:
            raise ConfigError(
                f"{where}.defaults.{name} = {defaults[name]} lies outside {where}.clamps.{name}",
                "change one of them",
            )


def within(name: str, value: Number, clamp: Range) -> Number:
    """``value`` brought into its range; what means no limit becomes the highest value."""
    low, high = clamp
    unlimited = FIELDS[name].unlimited
    if unlimited is not None and value <= unlimited:
        return value if high == math.inf else high
    if low is not None and value < low:
        return low
    return min(value, high)


def _known(key: str, where: str, found: Mapping[str, object]) -> str:
    name = ALIASES.get(key, key)
    if name not in FIELDS:
        near = difflib.get_close_matches(key, [*FIELDS, *ALIASES], n=1)
        hint = f"did you mean {where}.{near[0]}?" if near else f"there are {', '.join(sorted(FIELDS))}"
        raise ConfigError(f"unknown key {where}.{key}", hint)
    if name in found:
        raise ConfigError(f"{where} names {name} twice", f"{' and '.join(SPELLINGS[name])} are one thing")
    return name


def _checked(value: Any, kind: str, key: str) -> Any:
    if kind == "texts" and isinstance(value, str):
        value = [value]
    sound = {
        "integer": _is_number(value) and isinstance(value, int),
        "number": _is_number(value),
        "boolean": isinstance(value, bool),
        "text": isinstance(value, str),
        "texts": isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
    }
    if not sound[kind]:
        wanted = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
        said = {"text": "a text", "texts": "a text or a list of texts", **wanted}[kind]
        raise ConfigError(f"{key} must be {said}, not {value!r}", "mend that value")
    return list(value) if kind == "texts" else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _range(value: Any, kind: str, key: str) -> Range:
    pair = list(value) if isinstance(value, list | tuple) else [None, value]
    if len(pair) != 2:
        raise ConfigError(f"{key} must be a number or a pair, not {value!r}", "write 4096 or [0, 1.5]")
    low, high = pair
    low = None if low == -math.inf else low
    for bound in (low, high):
        if bound is not None and bound != math.inf:
            _checked(bound, kind, key)
    if low is not None and low > high:
        raise ConfigError(f"{key}: {low} is above {high}", "write the lower bound first")
    return low, high
