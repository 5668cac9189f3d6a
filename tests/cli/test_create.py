"""``create``, ``cp``, ``rm`` and ``show`` of models that Modelfiles make; none of it needs a daemon."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import GOLDEN_MODELS
from tests.e2e.conftest import llamamgr

Run = Callable[..., str]


@pytest.fixture
def work(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with both golden models in a configured one."""
    shutil.copytree(GOLDEN_MODELS, own_home / "gguf")
    (own_home / "work").mkdir()
    monkeypatch.setenv("LLAMAMGR_MODELS", str(own_home / "gguf"))
    monkeypatch.chdir(own_home / "work")
    return own_home / "work"


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> str:
    done = llamamgr(*arguments, stdin=stdin)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def names() -> set[str]:
    return {model["name"] for model in json.loads(run("list", "--json"))["models"]}


def test_a_modelfile_makes_a_model_that_has_a_life_of_its_own(work: Path):
    (work / "Modelfile").write_text(
        'FROM tinychat\nSYSTEM "Be brief."\nPARAMETER stop X\nPARAMETER num_ctx 1024\n'
    )
    assert 'next: llamamgr run brief:latest "hello"' in run("create", "brief")
    assert run("show", "brief", "--system") == "Be brief.\n"
    assert run("show", "brief", "--parameters").splitlines() == [
        "num_ctx                        1024",
        'stop                           "X"',
    ]
    shown = run("show", "brief")
    assert "tinychat:latest" in shown and "Be brief." in shown and "1024" in shown
    (work / "again").write_text(run("show", "brief", "--modelfile"))
    run("create", "again", "-f", "again")
    assert run("show", "again", "--system") == "Be brief.\n"
    assert "brief:latest is also called copy:latest" in run("cp", "brief", "copy")
    assert {"brief:latest", "again:latest", "copy:latest"} <= names()
    assert run("rm", "brief", "copy").splitlines() == ["brief:latest is removed", "copy:latest is removed"]
    assert not {"brief:latest", "copy:latest"} & names()
    assert list((work.parent / "data" / "models" / "blobs").iterdir())


def test_paths_start_from_the_modelfiles_folder(work: Path):
    folder = work / "sub"
    folder.mkdir()
    shutil.copy(GOLDEN_MODELS / "tinychat.gguf", folder / "my.gguf")
    (folder / "Modelfile").write_text("FROM ./my.gguf\n")
    run("create", "mine", "-f", "sub/Modelfile")
    assert str(folder / "my.gguf") in run("show", "mine")
    run("create", "from-folder", "-f", "-", stdin="FROM ./sub\n")
    assert str(folder / "my.gguf") in run("show", "from-folder")


@pytest.mark.parametrize(
    ("modelfile", "code", "text"),
    [
        ("FROM ./nothing.gguf", 4, "there is no file"),
        ("FROM ./empty", 2, "holds no GGUF file"),
        ("FROM tinychat\nADAPTER nothing", 4, "there is no adapter"),
        ("FROM tinychat\nTEMPLATE {{ .Prompt", 2, "template error: template: :1: unclosed action"),
        ("FROM tinychat\nPARAMETER tempr 1", 2, "standard input (line 2): unknown parameter 'tempr'"),
        ("SYSTEM x", 2, "standard input: no FROM line"),
        ("FROM tinychat\nFROM tinyembed", 2, "FROM names two models"),
    ],
)
def test_a_modelfile_that_makes_no_model_is_refused_with_a_hint(
    work: Path, modelfile: str, code: int, text: str
):
    (work / "empty").mkdir()
    said = run("create", "x", "-f", "-", stdin=modelfile, code=code)
    assert text in said and "hint: " in said
    assert "x:latest" not in names()


def test_without_a_modelfile_it_says_what_is_missing(work: Path):
    assert "there is no Modelfile here" in run("create", "x", code=4)


def test_parameters_that_do_nothing_are_told(work: Path):
    done = llamamgr("create", "x", "-f", "-", stdin="FROM tinychat\nPARAMETER mirostat 1\nREQUIRES 1.0.0\n")
    assert "warning: PARAMETER mirostat does nothing any more" in done.stderr
    assert "warning: REQUIRES means nothing to llama.cpp" in done.stderr


def test_a_file_that_lies_elsewhere_is_not_removed(work: Path):
    said = run("rm", "tinychat", code=11)
    assert "its file stays" in said and (work.parent / "gguf" / "tinychat.gguf").exists()
    assert "not found" in run("rm", "nope", code=4)


def test_of_several_models_each_failure_is_told_once_and_the_others_are_removed(work: Path):
    run("create", "mine", "-f", "-", stdin="FROM tinychat\n")
    done = llamamgr("rm", "gone", "mine", "tinychat")
    assert done.returncode == 4
    assert done.stdout == "mine:latest is removed\n"
    assert done.stderr.count("error: ") == done.stderr.count("hint: ") == 2
    assert done.stderr.count("'gone' not found") == 1


def test_a_model_that_no_list_will_have_is_warned_of(work: Path, monkeypatch: pytest.MonkeyPatch):
    (work / "Modelfile").write_text("FROM tinychat\n")
    (work.parent / "config").mkdir(exist_ok=True)
    (work.parent / "config" / "config.toml").write_text('sources = ["folders"]\n')
    done = llamamgr("create", "hidden")
    assert (done.returncode, "next:" in done.stdout) == (0, False)
    assert "warning: hidden:latest will be in no list: sources leaves the store out" in done.stderr
    monkeypatch.setenv("LLAMAMGR_SOURCES", "folders,ollama")
    assert "LLAMAMGR_SOURCES leaves the store out" in llamamgr("create", "hidden").stderr
    monkeypatch.setenv("LLAMAMGR_SOURCES", "folders,store")
    assert "warning" not in llamamgr("create", "hidden").stderr


def test_a_pull_of_what_cannot_be_a_name_starts_nothing(work: Path):
    assert "invalid model name" in run("pull", "hf:only-org", code=2)
    assert not (work.parent / "run").exists()
