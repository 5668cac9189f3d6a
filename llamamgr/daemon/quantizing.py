"""Quantizing for ``/api/create`` and ``llamamgr create``: a model's file through the llama-quantize of the build in force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llamamgr.core.cards import Build
from llamamgr.core.quant_types import find_type
from llamamgr.core.stages import Stage
from llamamgr.models.create import Quantizer


def quantizer_of(build: Callable[[], Build], locks: Path) -> Quantizer:
    """A ``Quantizer`` by the tool of the build that ``build`` gives when it is needed; ``locks`` is the folder of lock files."""

    def quantize(source: Path, target: Path, kind: str, count: Callable[[int, int], None]) -> None:
        from llamamgr.instances.quantize import Order, known_types
        from llamamgr.instances.quantize import quantize as perform

        def tell(stage: Stage) -> None:
            if stage.total:
                count(stage.done, stage.total)

        chosen = build()
        perform(chosen, Order(source, target, find_type(known_types(chosen), kind)), locks, tell)

    return quantize
