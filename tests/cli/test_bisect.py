"""``llamamgr bisect``: what people see and what scripts get."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.llama_history import Step, make

ROOT = Path(__file__).parents[2]


def llamamgr(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamamgr", *words], cwd=ROOT, capture_output=True, text=True, timeout=110
    )


def test_the_guilty_commit_is_named_with_the_figures_on_stdout_and_the_steps_on_stderr(own_home, tmp_path):
    history = make(tmp_path / "history", [Step(speed=100), Step(speed=70), Step(speed=70)])
    ends = ("--repo", str(history), "--good", "b1", "--bad", "b3", "--arch", "cpu")
    done = llamamgr("bisect", *ends, "--bench", "tg", "--drop", "20%")
    assert done.returncode == 0, done.stderr
    assert "first bad: b2 " in done.stdout and "change number 2 (Ann, " in done.stdout
    assert "tg128: 100.0 → 70.0 tokens/s (-30%)" in done.stdout
    assert "b2" in done.stderr and "building b2" in done.stderr and "commits left, about" in done.stderr
    assert not (own_home / "data" / "instances").exists()
    found = json.loads(
        llamamgr("bisect", *ends, "--json", "--", "sh", "-c", "test $LLAMAMGR_BISECT_NUMBER -lt 3").stdout
    )
    assert found["number"] == 3 and len(found["suspects"]) == 1


@pytest.mark.parametrize(
    ("words", "status", "tells"),
    [
        (("--bench", "xx"), 2, "measures nothing"),
        (("--bench", "tg", "--drop", "ten"), 2, "is no drop"),
        ((), 2, "nothing to test with"),
        (("--cmake-args", "'-DX", "--", "true"), 2, "--cmake-args: No closing quotation"),
        (("--", "/nowhere/program"), 7, "no program"),
        (("--instance", "nothing", "--", "true"), 4, "there is no instance"),
        (("--arch", "cpu", "--repo", "file:///nowhere", "--", "true"), 6, "cannot get llama.cpp"),
    ],
)
def test_every_refusal_has_its_status_and_a_hint(words, status, tells):
    done = llamamgr("bisect", "--good", "b1", "--bad", "b2", *words)
    assert done.returncode == status, done.stderr
    assert tells in done.stderr and "hint: " in done.stderr and "Traceback" not in done.stderr


def test_all_that_an_arch_lacks_is_told_before_any_of_its_programs_is_asked(own_home):
    recipes = own_home / "config" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "abacus.toml").write_text(
        'title = "Abacus"\npriority = -1\n[build_env]\nBEADS = "$(beads-config)"\n'
        '[[requires]]\nreason = "beads"\nfiles = ["/no/beads"]\n[[requires]]\nreason = "wire"\nfiles = ["/no/wire"]\n'
    )
    done = llamamgr("bisect", "--good", "b1", "--bad", "b2", "--arch", "abacus", "--", "true")
    assert done.returncode == 7 and "a build for Abacus needs what is not here: beads, wire" in done.stderr
