"""``llamamgr list`` as people and programs see it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llamamgr.cli.list import age, list_models
from llamamgr.cli.show import show
from llamamgr.core.errors import PermissionDeniedError
from tests.golden.replay import MODELS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(MODELS / "tinychat.gguf", tmp_path)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("LLAMAMGR_MODELS", str(tmp_path))
    return tmp_path


def test_a_table_lists_models_and_counts_what_was_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    list_models()
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["NAME", "ID", "SIZE", "QUANT", "ARCH", "CONTEXT", "MODIFIED"]
    row = next(line for line in lines if line[0] == "tinychat:latest")
    assert row[2:7] == ["1.8", "MB", "F32", "llama", "2048"]
    assert any(line[0] == "selftest:latest" for line in lines)
    assert err == "warning: 1 file or folder was passed over; `llamamgr list -v` tells why\n"


def test_a_home_that_cannot_be_written_is_an_error_where_it_leaves_nothing_to_list(
    own_home: Path, capsys: pytest.CaptureFixture[str]
):
    (own_home / "cache").write_text("no folder")
    with pytest.raises(PermissionDeniedError, match="cache/selftest cannot be written") as caught:
        list_models()
    assert "LLAMAMGR_HOME" in caught.value.hint
    assert capsys.readouterr().out == ""


def test_beside_other_models_it_is_a_warning_that_names_the_home(
    folder: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
):
    (own_home / "cache").write_text("no folder")
    list_models()
    out, err = capsys.readouterr()
    assert "tinychat:latest" in out
    assert f"warning: {own_home}/cache/selftest cannot be written: " in err
    assert "hint: set LLAMAMGR_HOME" in err and "warning: 1 file" in err


def test_verbose_tells_files_and_reasons(folder: Path, capsys: pytest.CaptureFixture[str]):
    list_models(verbose=True)
    out, err = capsys.readouterr()
    assert str(folder / "tinychat.gguf") in out
    assert err.startswith(f"warning: {folder / 'broken.gguf'}: ")


def test_json_is_one_document_with_models_and_faults(folder: Path, capsys: pytest.CaptureFixture[str]):
    list_models(as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert {model["name"] for model in document["models"]} == {"tinychat:latest", "selftest:latest"}
    assert [fault["path"] for fault in document["skipped"]] == [str(folder / "broken.gguf")]


def test_other_names_and_settings_of_config_are_told(
    folder: Path, own_home: Path, capsys: pytest.CaptureFixture[str]
):
    (own_home / "config").mkdir(exist_ok=True)
    (own_home / "config" / "config.toml").write_text(
        '[models.tinychat]\naliases = ["gpt-4o", "Tiny"]\ncontext = 512\nenv = { SECRET = "x" }\n'
    )
    list_models()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "ALIASES"
    assert next(line for line in lines if line.startswith("tinychat")).endswith("  gpt-4o, Tiny")
    list_models(as_json=True)
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert (models["tinychat:latest"]["aliases"], models["selftest:latest"]["aliases"]) == (
        ["gpt-4o", "Tiny"],
        [],
    )
    assert models["tinychat:latest"]["configured"] == {"context": 512}
    show("gpt-4o")
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (["aliases", "gpt-4o,", "Tiny"], ["context", "512"], ["env", "SECRET"]):
        assert row in told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7300, "2 hours ago"),
        (86400 * 20, "2 weeks ago"),
    ],
)
def test_ages_are_told_in_the_largest_unit(seconds: float, text: str):
    assert age(seconds) == text
