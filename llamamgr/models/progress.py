"""What a pull or a creation tells while it goes on, in the words and fields of Ollama (api/types.go ``ProgressResponse``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """``digest`` names the layer that ``completed`` of ``total`` bytes (tensors, when quantizing) are of."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


Tell: TypeAlias = Callable[[Progress], None]
SUCCESS = Progress("success")
