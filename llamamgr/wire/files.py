"""Files that OpenAI's clients enclose: what is text in them can be read, by any model."""

from __future__ import annotations

import base64

from llamamgr.wire.errors import DialectError


def text_of_file(data: str | None, name: str | None, where: str) -> str:
    """The text of an enclosed file (base64, or a ``data:`` address), under its name; ``DialectError`` 400 when it has none."""
    head, comma, encoded = (data or "").partition(",")
    try:
        text = base64.b64decode(encoded if comma else head, validate=True).decode()
    except ValueError:  # no base64, or no text
        text = ""
    if not text or text.startswith("%PDF-"):
        raise DialectError(
            400, f"{where}: files are read as text only, enclosed as base64 in file_data", param=where
        )
    return f"{name}\n{text}" if name else text
