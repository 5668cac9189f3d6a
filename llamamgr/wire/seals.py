"""Thoughts that a client keeps without seeing them: it gets them sealed, and sends them back as they are.

Nothing is hidden by it, since whoever asks may see the model's thoughts; it is what clients hold for opaque (``encrypted_content``
of OpenAI's reasoning items, ``signature`` of Anthropic's thinking blocks).
"""

from __future__ import annotations

import base64

# what comes after it is the text itself, in base64
_SEAL = "llamamgr1."


def sealed(text: str) -> str:
    return _SEAL + base64.b64encode(text.encode()).decode()


def unsealed(given: str) -> str:
    """What ``sealed`` was given; "" for what never came from it."""
    if not given.startswith(_SEAL):
        return ""
    try:
        return base64.b64decode(given.removeprefix(_SEAL), validate=True).decode("utf-8", "replace")
    except ValueError:  # no base64, or no ASCII
        return ""
