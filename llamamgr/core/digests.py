"""Digests as registries write them, ``sha256:<64 hex>``, parsed once: the only form that ever names a file of a store."""

from __future__ import annotations

import re

from llamamgr.core.errors import UsageError

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})\Z")


def parse_digest(text: str) -> str:
    """The 64 hex digits, lower-case; ``UsageError`` in Ollama's words for anything else."""
    found = _DIGEST.match(text)
    if not found:
        raise UsageError("invalid digest format", "it is sha256: and 64 hex digits")
    return found[1].lower()
