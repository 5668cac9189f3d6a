"""Media in requests: enclosed (base64, ``data:``) or given by an address, which the engine must never fetch itself.

llama-server would fetch any ``http`` address from within this machine, so addresses are
refused, or fetched by the proxy under its own rules and enclosed before the engine sees them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

NO_ADDRESSES = "image URLs are not currently supported, please use base64 encoded data instead"
NO_MEDIA = "Multimodal data provided, but model does not support multimodal requests."

_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]{0,31}):", re.IGNORECASE)
_DATA = re.compile(r"data:[^,;]*(?:;[^,;]*)*?;base64,", re.IGNORECASE)
_FIELDS = ("image_url", "video_url", "input_video", "input_audio")


def is_address(value: str) -> bool:
    """True for what is to be fetched from somewhere: any scheme but ``data``."""
    match = _SCHEME.match(value)
    return match is not None and match[1].lower() != "data"


def is_fetchable(value: str) -> bool:
    """True for an ``http`` or ``https`` address."""
    match = _SCHEME.match(value)
    return match is not None and match[1].lower() in ("http", "https")


def base64_of(value: str) -> str:
    """The base64 of a ``data:`` address, or of bare base64 as it is."""
    match = _DATA.match(value)
    return value[match.end() :] if match else value


def enclosed_in(value: Any) -> str:
    """The base64 of an OpenAI part's ``image_url`` or ``input_audio``, an object or a text; empty when there is none."""
    inner = value.get("url", value.get("data")) if isinstance(value, dict) else value
    return unwrapped(base64_of(inner)) if isinstance(inner, str) else ""


def unwrapped(data: str) -> str:
    """Base64 without the line ends that mail puts into it, and that the engine does not take."""
    return data.replace("\n", "").replace("\r", "")


def data_address(kind: str, data: bytes) -> str:
    """``data`` enclosed; ``kind`` is a media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def values_of(part: Mapping[str, Any]) -> list[str]:
    """All strings that could be an address in a content part of a chat, wherever clients put them."""
    found = []
    for field in _FIELDS:
        value = part.get(field)
        inner = value.values() if isinstance(value, dict) else (value,)
        found += [one for one in inner if isinstance(one, str)]
    return found


def enclose(part: Mapping[str, Any], fetched: Mapping[str, str]) -> dict[str, Any]:
    """``part`` with every address in ``fetched`` replaced by what it stands for there."""
    return {
        key: {
            name: fetched.get(inner, inner) if isinstance(inner, str) else inner
            for name, inner in value.items()
        }
        if isinstance(value, dict)
        else fetched.get(value, value)
        if isinstance(value, str)
        else value
        for key, value in part.items()
    }


def addresses(parts: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The addresses in content parts, each once, in order."""
    return tuple(dict.fromkeys(value for part in parts for value in values_of(part) if is_address(value)))
