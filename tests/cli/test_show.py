"""``llamamgr show`` as people and programs see it."""

from __future__ import annotations

import json

import pytest

from llamamgr.cli.show import show
from llamamgr.core.errors import NotFoundError


def test_sections_tell_the_model_what_it_can_and_where_it_is(capsys: pytest.CaptureFixture[str]):
    show("selftest")
    out = capsys.readouterr().out
    titles = [
        line.strip() for line in out.splitlines() if line.startswith("  ") and not line.startswith("    ")
    ]
    assert titles == ["Model", "Capabilities", "Files"]
    assert "context length" in out
    assert "thinking" in out
    assert "selftest.gguf" in out


def test_verbose_tells_metadata_and_tensors(capsys: pytest.CaptureFixture[str]):
    show("selftest", verbose=True)
    out = capsys.readouterr().out
    assert "llama.attention.head_count_kv" in out
    assert "token_embd.weight" in out


def test_json_is_what_the_api_answers(capsys: pytest.CaptureFixture[str]):
    show("SELFTEST", as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["details"]["family"] == "llama"
    assert answer["model_info"]["general.architecture"] == "llama"


def test_an_unknown_model_is_an_error_with_a_hint():
    with pytest.raises(NotFoundError) as caught:
        show("selftesst")
    assert "selftest:latest" in caught.value.hint
