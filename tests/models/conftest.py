"""Small GGUF files, and an index over a folder of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamamgr.core.config import Config
from llamamgr.host.paths import Paths
from llamamgr.models.index import Index
from llamamgr.models.writer import F32Tensor, gguf_bytes
from tests.fakes.clock import Clock

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def write(folder: Path) -> Write:
    """Writes a model of the given metadata (``__`` for ``.``) under ``folder``."""

    def _write(name: str, size: int = 4, **metadata: Any) -> Path:
        keys = {key.replace("__", "."): value for key, value in metadata.items()}
        standard = {"general.architecture": "llama", "llama.context_length": 64, "llama.embedding_length": 8}
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gguf_bytes(standard | keys, [F32Tensor("blk.0.w", (size,), bytes(4 * size))]))
        return path

    return _write


@pytest.fixture
def paths(own_home: Path) -> Paths:
    return Paths.of_environment()


@pytest.fixture
def index(paths: Paths, folder: Path, clock: Clock) -> Index:
    return Index(paths, Config(models_dirs=(str(folder),)), clock=clock)
