"""``llamamgr recipes``: a table for people, documents for programs, one recipe in full."""

import json
import subprocess
import sys

import pytest

from llamamgr.cli import recipes as command
from llamamgr.core.errors import NotFoundError, UsageError

USERS = 'extends = "cpu"\ntitle = "Mine"\npriority = 200\n'


@pytest.fixture
def folder(own_home):
    made = own_home / "config" / "recipes"
    made.mkdir(parents=True)
    return made


def test_the_table_names_each_arch_and_what_auto_takes(folder, capsys):
    (folder / "mine.toml").write_text(USERS)
    command.recipes()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "PRIORITY", "HERE", "WHY"]
    assert lines[1].split()[:3] == ["mine", "200", "yes"]
    assert {"cuda", "rocm", "cpu", "cpu-portable"} <= {line.split()[0] for line in lines if line}
    assert lines[-1] == "`--arch auto` takes mine"


def test_a_broken_recipe_is_a_warning_and_hides_nothing(folder, capsys):
    (folder / "mine.toml").write_text("priority = 1\n")
    command.recipes()
    printed = capsys.readouterr()
    assert "cuda" in printed.out and "mine.toml" in printed.err and "hint: " in printed.err


def test_the_document_has_what_the_table_has_and_what_to_type(folder, capsys):
    text = '[[requires]]\nreason = "Luck"\ntool = "no-such-tool"\nother = "find some"\n'
    (folder / "mine.toml").write_text(USERS + text)
    (folder / "bad.toml").write_text("no TOML")
    command.recipes(as_json=True)
    document = json.loads(capsys.readouterr().out)
    mine = next(recipe for recipe in document["recipes"] if recipe["name"] == "mine")
    assert mine["detected"] is False and mine["file"].endswith("mine.toml")
    assert mine["needs"] == [
        {"reason": "Luck", "least": "", "found": "", "fault": "not found", "command": "find some"}
    ]
    assert document["auto"] and [broken["name"] for broken in document["broken"]] == ["bad"]


def test_one_recipe_is_shown_in_full_with_what_this_machine_makes_of_it(folder, capsys):
    text = '[cmake]\nGGML_LUCK = "ON"\n[build_env]\nCC = "$(echo cc-9)"\n[targets]\nentry = "FOR"\n'
    (folder / "mine.toml").write_text(USERS + text + 'pattern = "[a-z]+"\nexample = "a;b"\n')
    command.recipes("show", "mine", gpu_targets="x,y")
    out = capsys.readouterr().out
    assert all(line in out for line in ("-DGGML_LUCK=ON", "-DFOR=x;y", "CC=cc-9", "x;y, by --gpu-targets"))
    command.recipes("show", "mine", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["arguments"] == ["-DGGML_LUCK=ON"] and document["recipe"]["build_env"] == {"CC": "cc-9"}


def test_one_whose_toolkit_is_not_here_is_shown_as_it_is_written(folder, capsys):
    text = '[build_env]\nCC = "$(no-such-tool -l)"\n[[requires]]\nreason = "Luck"\ntool = "no-such-tool"\n'
    (folder / "mine.toml").write_text(USERS + text)
    command.recipes("show", "mine")
    out = capsys.readouterr().out
    assert "✗ Luck: not found" in out and "CC=$(no-such-tool -l)" in out


@pytest.mark.parametrize(
    ("words", "error"), [(("show",), UsageError), (("list",), UsageError), (("show", "nope"), NotFoundError)]
)
def test_what_is_not_understood_or_not_there_is_an_error(words, error):
    with pytest.raises(error):
        command.recipes(*words)


def test_an_arch_without_its_toolkit_fails_before_anything_is_fetched(folder, own_home):
    text = "".join(
        f'[[requires]]\nreason = "{part}"\ntool = "no-such-{part}"\nother = "see {part}.org"\n'
        for part in ("compiler", "library")
    )
    (folder / "mine.toml").write_text(USERS + text)
    done = subprocess.run(
        [sys.executable, "-m", "llamamgr", "install", "--arch", "mine"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    assert all(
        word in done.stderr
        for word in ("Mine needs", "compiler, library", "see compiler.org", "see library.org")
    )
    assert not (own_home / "data" / "sources").exists() and not list(
        own_home.glob("data/instances/*/builds/*")
    )
