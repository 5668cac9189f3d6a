"""A model by the path of its file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llamamgr.core.errors import NotFoundError, UsageError
from llamamgr.models.single import card_of_file
from tests.conftest import GOLDEN_MODELS

TINY = GOLDEN_MODELS / "tinychat.gguf"


def test_the_card_is_that_of_the_file(tmp_path, monkeypatch):
    shutil.copy(TINY, tmp_path / "Some-Model-Q8_0.gguf")
    (tmp_path / "other.gguf").write_bytes(b"not a model, and not asked for")
    card = card_of_file(tmp_path / "Some-Model-Q8_0.gguf")
    assert (card.name, card.path, card.size) == (
        "Some-Model:Q8_0",
        str(tmp_path / "Some-Model-Q8_0.gguf"),
        TINY.stat().st_size,
    )
    monkeypatch.chdir(tmp_path)
    assert card_of_file(Path("Some-Model-Q8_0.gguf")) == card


def test_the_name_of_the_file_need_not_end_in_gguf(tmp_path):
    shutil.copy(TINY, tmp_path / "sha256-abc")
    assert card_of_file(tmp_path / "sha256-abc").path == str(tmp_path / "sha256-abc")


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="there is no file"):
        card_of_file(tmp_path / "x.gguf")
    with pytest.raises(NotFoundError):
        card_of_file(tmp_path)


def test_what_is_no_model_is_refused_with_the_reason(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GG")
    with pytest.raises(UsageError, match=r"cannot be run: .+"):
        card_of_file(tmp_path / "x.gguf")
