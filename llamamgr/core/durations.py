"""Go durations, as Ollama's ``keep_alive`` spells them (source: Ollama api/types.go, seen live).

A number is seconds, a string is a Go duration (``5m``, ``1h30m``, ``-1s``), a negative value means for ever.
"""

from __future__ import annotations

import math
import re

FOREVER = math.inf

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
_MOST = (2**63 - 1) / 1e9  # seconds in the longest duration that Go has


def parse_duration(text: str) -> float:
    """Seconds of a Go duration string; ``ValueError`` with Go's own wording when it is none (source: Go time.ParseDuration)."""
    body = text[1:] if text[:1] in "+-" else text
    if body == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(body) or not body:
        part = _PART.match(body, at)
        if part is None:
            raise ValueError(f"time: invalid duration {_quoted(text)}")
        if not part[2]:
            raise ValueError(f"time: missing unit in duration {_quoted(text)}")
        if part[2] not in _UNITS:
            raise ValueError(f"time: unknown unit {_quoted(part[2])} in duration {_quoted(text)}")
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if total > _MOST:
        raise ValueError(f"time: invalid duration {_quoted(text)}")
    return -total if text[0] == "-" else total


def _quoted(text: str) -> str:
    """As Go's package time does: what is not printable ASCII byte by byte."""
    shown = (
        f"\\{chr(byte)}" if chr(byte) in '"\\' else chr(byte) if 32 <= byte < 128 else f"\\x{byte:02x}"
        for byte in text.encode("utf-8", "surrogatepass")
    )
    return f'"{"".join(shown)}"'


def parse_keep_alive(value: object) -> float:
    """Seconds that a model stays after its last request; ``FOREVER`` for negatives. ``ValueError`` as Ollama words it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        names = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
        raise ValueError(f"Unsupported type: '{names.get(type(value), type(value).__name__)}'")  # noqa: TRY004 - a request's value
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    return FOREVER if seconds < 0 else seconds


def format_duration(seconds: float) -> str:
    """The largest two units that tell something: ``4m59s``, ``1h0m``, ``12s``, ``Forever``."""
    if math.isinf(seconds):
        return "Forever"
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{secs}s" if minutes else f"{secs}s"
